use std::process::Command;

use sqlx::{Connection as _, PgConnection};
use waypost_testbed::Postgres;

async fn one(url: &str) -> sqlx::Result<i32> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar("SELECT 1")
        .fetch_one(&mut connection)
        .await
}

#[tokio::test]
async fn sqlx_and_psql_reach_a_database_by_its_url() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.fresh_database().unwrap();
    assert_eq!(one(&url).await.unwrap(), 1);
    let psql = Command::new("psql")
        .args([&url, "-Atc", "SHOW fsync"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "on");
    let without_password = url.replace(url.split([':', '@']).nth(2).unwrap(), "wrong");
    assert!(one(&without_password).await.is_err());
}

#[test]
fn committed_rows_survive_a_kill_on_the_same_port() {
    let postgres = Postgres::start().unwrap();
    let (url, pid) = (postgres.url("postgres"), postgres.pid());
    postgres
        .query("postgres", "CREATE TABLE t AS SELECT 7 AS n")
        .unwrap();
    postgres.kill().unwrap();
    assert!(postgres.query("postgres", "SELECT 1").is_err());
    postgres.restart().unwrap();
    assert_eq!(postgres.query("postgres", "SELECT n FROM t").unwrap(), "7");
    assert_eq!(postgres.url("postgres"), url);
    assert_ne!(postgres.pid(), pid);
    postgres.stop().unwrap();
    postgres.restart().unwrap();
    assert_eq!(postgres.query("postgres", "SELECT n FROM t").unwrap(), "7");
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    postgres.pause().unwrap();
    let mut answer = Box::pin(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut connection));
    let patience = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(patience, &mut answer).await.is_err());
    postgres.resume().unwrap();
    assert_eq!(answer.await.unwrap(), 1);
}
