//! The process: bind, build, ready, serve, drain.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use waypost_proto::analytics::analytics_service_server::AnalyticsServiceServer;
use waypost_proto::auth::ServiceToken;
use waypost_runtime::config::Invalid;
use waypost_runtime::{Error, Process, Shutdown, secrets};

use crate::metrics::Metrics;
use crate::store::PostgresRollups;
use crate::{Analytics, Options, consumer};

/// One transaction per partition at once, and some for statistics.
const MAX_CONNECTIONS: u32 = 16;

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries to reach a database that is down.
const RETRY: Duration = Duration::from_millis(500);

/// Runs the consumer and its statistics until shutdown is asked for.
///
/// # Errors
/// If an option or a secret cannot be worked with, or serving ends by itself.
pub async fn serve(options: Options, process: Process) -> Result<(), Error> {
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        Error::Config(Invalid {
            option: "--listen",
            problem: format!("cannot bind {}: {error}", options.listen),
        })
    })?;
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
    let token = service_token(&options)?;
    let connect: PgConnectOptions = options.postgres_url.parse().map_err(|error| Invalid {
        option: "--postgres-url",
        problem: format!("{error}"),
    })?;
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(connect.application_name("waypost-analytics-consumer"));
    let store = Arc::new(PostgresRollups::new(pool));
    let metrics = Metrics::register(&process.registry)
        .map_err(|error| Error::failed("register the metrics of analytics", error))?;

    let shutdown = process.shutdown.clone();
    let reached = process.readiness.condition("database reached");
    let counting = async {
        if !prepare(&store, &shutdown).await? {
            return Ok(());
        }
        reached.set(true);
        let settings = consumer::Settings {
            servers: options.kafka.clone(),
            topic: options.kafka_topic.clone(),
            group: options.kafka_group.clone(),
            session_timeout: options.kafka_session_timeout,
        };
        let thread = consumer::start(settings, Arc::clone(&store), metrics, shutdown.clone())?;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::failed("count clicks", "the consumer's thread died")),
        }
    };
    let address = listener.local_addr().unwrap_or(options.listen);
    tracing::info!(%address, "serving");
    let answering = async {
        waypost_proto::transport::server()
            .add_service(AnalyticsServiceServer::with_interceptor(
                Analytics::new(Arc::clone(&store)),
                token.required(),
            ))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.requested(),
            )
            .await
            .map_err(|error| Error::failed("serve gRPC", error))
    };
    tokio::try_join!(counting, answering).map(drop)
}

/// Makes the schema as soon as the database can be reached: the process answers its
/// probes meanwhile. False if the process ends before.
async fn prepare(store: &PostgresRollups, shutdown: &Shutdown) -> Result<bool, Error> {
    let mut warned = false;
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(true),
            Err(error @ (MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))) => {
                if !warned {
                    warned = true;
                    tracing::warn!(%error, "database not reached, trying again");
                }
            }
            // The schema is of another release: trying again changes nothing.
            Err(error) => return Err(Error::failed("prepare the rollups", error)),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.requested() => return Ok(false),
        }
    }
}

fn service_token(options: &Options) -> Result<ServiceToken, Invalid> {
    const NAME: &str = "service-token";
    ServiceToken::parse(&secrets::read(&options.secrets_dir, NAME)?)
        .ok_or_else(|| secrets::malformed(NAME, "expected 16 to 512 visible ASCII characters"))
}
