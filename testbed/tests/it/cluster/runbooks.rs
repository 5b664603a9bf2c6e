//! What the runbooks tell an operator to type.

use std::path::Path;

use sqlx::{Connection as _, Executor as _, PgConnection};

use super::shared;

/// The queries of all runbooks: whatever stands between backticks and ends as one.
fn queries() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut found = Vec::new();
    for page in std::fs::read_dir(folder).unwrap() {
        let path = page.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split('`').skip(1).step_by(2);
        let queries = code.filter(|code| code.starts_with("SELECT ") && code.ends_with(';'));
        // What an operator fills in: a process id that is none, a prefix.
        let filled = queries.map(|query| query.replace("PID", "0").replace("'XX'", "'aa'"));
        found.extend(filled.map(|query| (name.clone(), query)));
    }
    found
}

#[test]
fn the_databases_understand_every_query_of_the_runbooks() {
    let cluster = shared();
    let urls = [cluster.shards[0].url(), cluster.analytics_url()];
    let queries = queries();
    assert!(queries.len() >= 10, "{queries:?}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut shard = PgConnection::connect(&urls[0]).await.unwrap();
        let mut analytics = PgConnection::connect(&urls[1]).await.unwrap();
        for (page, query) in queries {
            let sql = || sqlx::raw_sql(sqlx::AssertSqlSafe(&*query));
            let at_shard = shard.execute(sql()).await;
            let Err(error) = at_shard else { continue };
            let at_analytics = analytics.execute(sql()).await;
            assert!(at_analytics.is_ok(), "{page}: {query}: {error}");
        }
    });
}
