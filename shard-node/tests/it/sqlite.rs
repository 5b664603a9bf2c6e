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
        &shutdown,
        &prometheus::Registry::new(),
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
