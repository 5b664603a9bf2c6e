//! The process: bind, build, ready, serve, drain.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tonic::service::Routes;
use waypost_proto::analytics::analytics_service_server::AnalyticsServiceServer;
use waypost_proto::auth::ServiceToken;
use waypost_runtime::{Error, Process, database, grpc, secrets};

use crate::metrics::Metrics;
use crate::store::{Keep, PostgresRollups};
use crate::{Analytics, Options, consumer};

/// One transaction per partition at once, and some for statistics.
const MAX_CONNECTIONS: u32 = 16;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How soon the server gives up on a consumer that is frozen in a transaction or gone
/// without a word. Until then that holds the locks of its partitions, so that who has
/// them now counts nothing.
const LOST_WITHIN: [(&str, &str); 4] = [
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
];

/// Runs the consumer and its statistics until shutdown is asked for.
///
/// # Errors
/// If an option, a secret or the database cannot be worked with, or serving ends by
/// itself.
pub async fn serve(options: Options, process: Process) -> Result<(), Error> {
    let listener = waypost_runtime::bind("--listen", options.listen).await?;
    serve_on(listener, options, process).await
}

/// The same on a listener that is bound already.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(
    listener: TcpListener,
    options: Options,
    process: Process,
) -> Result<(), Error> {
    // First of all, so that the process is at no time ready by mistake.
    let reached = process.readiness.condition("database reached");
    let tls = options.tls.open(&process)?;
    let (secret, expected) = (ServiceToken::SECRET, ServiceToken::EXPECTED);
    let token = secrets::parse(&options.secrets_dir, secret, expected, ServiceToken::parse)?;
    let connections = options.kafka_options.read()?;
    let database = options.postgres.connect("waypost-analytics-consumer")?;
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(database.options(LOST_WITHIN));
    let store = Arc::new(PostgresRollups::new(pool));
    if options.migrate_only {
        let migrate = || store.migrate();
        let is_permanent = database::Error::is_permanent;
        return database::prepare_only(&process.shutdown, migrate, is_permanent).await;
    }
    let metrics = Metrics::register(&process.registry)
        .map_err(|error| Error::failed("register the metrics of analytics", error))?;

    let shutdown = &process.shutdown;
    let counting = async {
        let migrate = || store.migrate();
        if !database::prepare(shutdown, migrate, database::Error::is_permanent).await? {
            return Ok(());
        }
        reached.set(true);
        let settings = consumer::Settings {
            servers: options.kafka.clone(),
            connections,
            topic: options.kafka_topic.clone(),
            group: options.kafka_group.clone(),
            session_timeout: options.kafka_session_timeout,
            keep: Keep {
                producers: options.keep_producers,
                dead_letters: options.keep_dead_letters,
            },
        };
        let counting = metrics.clone();
        let thread = consumer::start(settings, Arc::clone(&store), counting, shutdown.clone())?;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::failed("count clicks", "the consumer's thread died")),
        }
    };
    let answering = async {
        let analytics = Analytics::new(Arc::clone(&store), metrics.clone());
        let service = AnalyticsServiceServer::with_interceptor(analytics, token.required());
        grpc::serve(Routes::new(service), listener, tls, shutdown.requested())
            .await
            .map_err(|error| Error::failed("serve gRPC", error))
    };
    tokio::try_join!(counting, answering).map(drop)
}
