//! What only the SQLite store is asked, and the conformance suite.

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::link_service_server::LinkServiceServer;
use waypost_proto::link::{self as message, create_outcome, watch_event};
use waypost_proto::transport::in_process;
use waypost_shard_node::open_sqlite;
use waypost_shard_node::store::sqlite::SqliteStore;
use waypost_shard_node::store::{LinkStore as _, Resolved, Session as _};

use crate::fixture::*;

struct Sqlite {
    folder: TempDir,
    store: SqliteStore,
}

async fn open() -> Sqlite {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("links.db");
    let store = SqliteStore::open(&path, shard("s0"), key_ring()).await;
    let store = store.unwrap();
    store.prepare(&map()).await.unwrap();
    Sqlite { folder, store }
}

impl Sqlite {
    async fn connection(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.folder.path().join("links.db"))
            .connect()
            .await
            .unwrap()
    }
}

impl Database for Sqlite {
    type Store = SqliteStore;

    fn store(&self) -> &SqliteStore {
        &self.store
    }

    async fn execute(&self, sql: &'static str) {
        let mut connection = self.connection().await;
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }
}

crate::conformance::conformance!(open());

#[tokio::test]
async fn a_reopened_file_has_everything() {
    let first = open().await;
    let link = create(&mut first.session().await, &alias("keep-me")).await;
    update(
        &mut first.session().await,
        "keep-me",
        "https://example.org/",
    )
    .await;
    let Sqlite { folder, store } = first;
    drop(store);
    let path = folder.path().join("links.db");
    let store = SqliteStore::open(&path, shard("s0"), key_ring())
        .await
        .unwrap();
    store.prepare(&map()).await.unwrap();
    let again = Sqlite { folder, store };
    let mut session = again.session().await;
    let read = session
        .resolve_batch(std::slice::from_ref(&link.key))
        .await
        .unwrap();
    assert!(matches!(&read[0], Resolved::Found(read) if read.version > link.version));
    assert_eq!(session.oldest(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_service_in_process_creates_resolves_and_tells_changes() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let service = open_sqlite(
        &folder.path().join("links.db"),
        shard("s0"),
        &map(),
        key_ring(),
        std::time::Duration::from_hours(720),
        &shutdown,
        &waypost_runtime::metrics::Registry::new(),
    )
    .await
    .unwrap();
    let mut client = LinkServiceClient::new(in_process(LinkServiceServer::new(service)));
    let mut events = None;
    eventually("the relay leads", async || {
        let mut client = client.clone();
        events = client.watch(message::WatchRequest {}).await.ok();
        events.is_some()
    })
    .await;
    let mut events = events.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let Some(watch_event::Event::Ownership(ownership)) = first.event else {
        panic!("the stream began with {first:?}");
    };
    assert_eq!(ownership.prefixes.len(), waypost_domain::Prefix::COUNT);

    let mut bad = message::NewLink::from(&alias("bad-link"));
    bad.long_url = b"javascript:alert(1)".to_vec();
    let request = message::CreateBatchRequest {
        links: vec![bad, message::NewLink::from(&alias("good-link"))],
    };
    let outcomes = client
        .create_batch(request)
        .await
        .unwrap()
        .into_inner()
        .outcomes;
    let kinds: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.outcome.as_ref().unwrap())
        .collect();
    assert!(matches!(kinds[0], create_outcome::Outcome::Failed(failure) if !failure.retry));
    assert!(matches!(kinds[1], create_outcome::Outcome::Created(_)));

    let request = message::DeleteRequest {
        key: Some((&key("good-link")).into()),
        tenant: "acme".to_owned(),
        if_version: None,
        change_id: vec![1; 16],
    };
    client.delete(request).await.unwrap();
    let told = loop {
        let event = events.message().await.unwrap().unwrap();
        if let Some(watch_event::Event::Changed(link)) = event.event {
            break link;
        }
    };
    assert_eq!(told.slug, "good-link");
    assert_eq!(told.state(), message::State::Deleted);
    // With no Redis to wait for, the outbox is empty again.
    loop {
        let event = events.message().await.unwrap().unwrap();
        if matches!(event.event, Some(watch_event::Event::Heartbeat(beat)) if beat.oldest_unapplied_ms == 0)
        {
            break;
        }
    }

    let too_many = message::ResolveBatchRequest {
        keys: vec![(&key("good-link")).into(); 1_025],
    };
    let status = client.resolve_batch(too_many).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    shutdown.cancel();
    // The term ends with the process, and with it the stream.
    while let Ok(Some(_)) = events.message().await {}
}

#[tokio::test]
async fn lists_are_filtered_and_look_at_a_bounded_number_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let service = open_sqlite(
        &folder.path().join("links.db"),
        shard("s0"),
        &map(),
        key_ring(),
        std::time::Duration::from_hours(720),
        &shutdown,
        &waypost_runtime::metrics::Registry::new(),
    )
    .await
    .unwrap();
    let mut client = LinkServiceClient::new(in_process(LinkServiceServer::new(service)));
    let mut needles = [minted("ne000000"), minted("ne000001"), minted("NE000002")];
    needles[0].title = Some("Die Ähre".to_owned());
    needles[1].tags = vec!["grain".to_owned()];
    needles[1].long_url = url("https://example.com/%C3%84hre?q=NEEDLE");
    let hay = (0..10_100).map(|at| minted(&format!("{:02}{at:06}", at % 90)));
    let all: Vec<_> = needles.iter().cloned().chain(hay).collect();
    for part in all.chunks(1_000) {
        let links = part.iter().map(Into::into).collect();
        let request = message::CreateBatchRequest { links };
        client.create_batch(request).await.unwrap();
    }
    let query = |tag: Option<&str>, text: Option<&str>| message::ListRequest {
        tenant: "acme".to_owned(),
        tag: tag.map(str::to_owned),
        text: text.map(str::to_owned),
        after: None,
        limit: 2,
    };
    let expected: [(_, &[&str]); 7] = [
        (query(None, Some("äHRE")), &["ne000000"]),
        (query(None, Some("needle")), &["ne000001"]),
        (
            query(None, Some("ne00000")),
            &["NE000002", "ne000000", "ne000001"],
        ),
        (query(Some("grain"), None), &["ne000001"]),
        (query(Some("Grain"), None), &[]),
        (query(Some("grain"), Some("ähre")), &[]),
        (query(Some("grain"), Some("needle")), &["ne000001"]),
    ];
    for (mut query, slugs) in expected {
        let (mut found, mut calls) = (Vec::new(), 0);
        loop {
            let page = client.list(query.clone()).await.unwrap().into_inner();
            found.extend(page.links.into_iter().map(|link| link.slug));
            calls += 1;
            let Some(place) = page.looked_to else { break };
            query.after = Some(place);
        }
        assert_eq!(found, slugs, "{query:?}");
        assert!(calls >= 2, "more than ten thousand rows in one call");
    }
    let first = client.list(query(None, None)).await.unwrap().into_inner();
    assert_eq!(first.links.len(), 2);
    let last = first.links.last().unwrap();
    assert_eq!(first.looked_to.unwrap().slug, last.slug);
    let mut unlimited = query(None, None);
    unlimited.limit = 1_025;
    let status = client.list(unlimited).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    shutdown.cancel();
}
