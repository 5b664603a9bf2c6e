//! Whole keygens over gRPC on one Postgres.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser as _;
use sqlx::{Connection as _, PgConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use waypost_keygen::Options;
use waypost_proto::keygen::LeaseSlugsRequest;
use waypost_proto::keygen::keygen_service_client::KeygenServiceClient;
use waypost_runtime::admin::Readiness;
use waypost_runtime::metrics::Registry;
use waypost_runtime::traces::Sampler;
use waypost_runtime::watched::Watcher;
use waypost_runtime::{Error, Process, Shutdown};
use waypost_testbed::Postgres;

use crate::service::{fresh_database, lease};

const TOKEN: &str = "a-token-for-these-tests";

struct Running {
    address: SocketAddr,
    process: Process,
    task: JoinHandle<Result<(), Error>>,
    _secrets: tempfile::TempDir,
}

impl Running {
    async fn start(postgres_url: &str) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        std::fs::write(secrets.path().join("service-token"), TOKEN).unwrap();
        std::fs::write(secrets.path().join("slug-key"), "07".repeat(32)).unwrap();
        let options = Options::parse_from([
            "waypost-keygen",
            "--postgres-url",
            postgres_url,
            "--secrets-dir",
            secrets.path().to_str().unwrap(),
        ]);
        let registry = Registry::new();
        let process = Process {
            shutdown: Shutdown::new(Duration::from_secs(5)),
            readiness: Readiness::default(),
            watcher: Watcher::register(&registry).unwrap(),
            registry,
            sampler: Sampler::OFF,
            threads: 1,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            process: process.clone(),
            task: tokio::spawn(waypost_keygen::serve_on(listener, options, process)),
            _secrets: secrets,
        }
    }

    fn client(&self, token: &'static str) -> Client {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .timeout(Duration::from_secs(20))
            .connect_lazy();
        KeygenServiceClient::with_interceptor(channel, Bearer(token))
    }

    async fn wait_ready(&self) {
        let ready = async {
            while !self.process.readiness.missing().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready)
            .await
            .expect("ready in time");
    }

    /// Why it ends by itself, with all causes.
    async fn problem(self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.task).await;
        let error = ended.expect("an end in time").unwrap().unwrap_err();
        let mut problem = format!("{error:?} {error}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            problem += &format!(": {error}");
            cause = error.source();
        }
        problem
    }
}

type Client = KeygenServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Clone)]
struct Bearer(&'static str);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

fn request() -> LeaseSlugsRequest {
    LeaseSlugsRequest {
        prefixes: vec![lease("aa", 1, 64), lease("bb", 1, 64), lease("zz", 1, 1)],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keygens_on_one_database_never_issue_a_slug_twice() {
    const CALLERS: usize = 4;
    const CALLS: usize = 10;
    let url = fresh_database().await;
    let keygens = [Running::start(&url).await, Running::start(&url).await];
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let keygen = &keygens[caller % keygens.len()];
        keygen.wait_ready().await;
        let mut client = keygen.client(TOKEN);
        callers.spawn(async move {
            let mut slugs = Vec::new();
            for _ in 0..CALLS {
                slugs.extend(
                    client
                        .lease_slugs(request())
                        .await
                        .unwrap()
                        .into_inner()
                        .slugs,
                );
            }
            slugs
        });
    }
    let slugs: Vec<String> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(slugs.len(), CALLERS * CALLS * 129);
    assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
    for keygen in keygens {
        keygen.process.shutdown.request();
        keygen.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_the_service_token_get_nothing() {
    let keygen = Running::start(&fresh_database().await).await;
    let mut stranger = keygen.client("some-other-token");
    let refused = stranger.lease_slugs(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keygen_starts_and_stays_without_its_database() {
    let (server, url) = tokio::task::spawn_blocking(|| {
        let server = Postgres::start().unwrap();
        let url = server.fresh_database().unwrap();
        server.stop().unwrap();
        (server, url)
    })
    .await
    .unwrap();
    let keygen = Running::start(&url).await;
    let mut client = keygen.client(TOKEN);
    let failed = client.lease_slugs(request()).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed:?}");
    assert_eq!(keygen.process.readiness.missing(), ["database reached"]);

    let restart = tokio::task::spawn_blocking(move || server.restart().map(|()| server));
    let server = restart.await.unwrap().unwrap();
    keygen.wait_ready().await;
    let first = client.lease_slugs(request()).await.unwrap().into_inner();

    // Its connections are cut; the next lease finds out and goes on.
    let restart = tokio::task::spawn_blocking(move || {
        server.kill().unwrap();
        server.restart().map(|()| server)
    });
    let _server = restart.await.unwrap().unwrap();
    let second = client.lease_slugs(request()).await.unwrap().into_inner();
    let all: HashSet<&String> = first.slugs.iter().chain(&second.slugs).collect();
    assert_eq!(all.len(), 2 * 129);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_later_release_ends_the_keygen() {
    let url = fresh_database().await;
    let keygen = Running::start(&url).await;
    keygen.wait_ready().await;
    let mut database = PgConnection::connect(&url).await.unwrap();
    let later = "UPDATE keygen_migrations SET version = 99";
    sqlx::query(later).execute(&mut database).await.unwrap();
    let problem = Running::start(&url).await.problem().await;
    assert!(problem.contains("version 99"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_tables_ends_the_keygen() {
    let url = fresh_database().await + "?options[role]=pg_monitor";
    let problem = Running::start(&url).await.problem().await;
    assert!(problem.contains("permission denied"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_url_is_refused_without_being_shown() {
    let keygen = Running::start("postgres://waypost:hunter2@host:port/keys").await;
    let problem = keygen.problem().await;
    assert!(problem.contains("--postgres-url"), "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
}
