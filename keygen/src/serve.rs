//! The process: bind, build, ready, serve, drain.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use waypost_domain::mint::Mint;
use waypost_domain::signature::parse_hex;
use waypost_proto::auth::ServiceToken;
use waypost_proto::keygen::keygen_service_server::KeygenServiceServer;
use waypost_runtime::admin::Condition;
use waypost_runtime::config::Invalid;
use waypost_runtime::{Error, Process, secrets};

use crate::store::PostgresCounters;
use crate::{Keygen, Options};

/// Leases are few and each holds its rows for some milliseconds.
const MAX_CONNECTIONS: u32 = 8;

/// A lease that gets no connection within this is refused; the caller has others
/// to ask.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries to reach a database that is down.
const RETRY: Duration = Duration::from_millis(500);

/// Runs a keygen until shutdown is asked for.
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
    let mint = Mint::new(&slug_key(&options)?);
    let connect: PgConnectOptions = options.postgres_url.parse().map_err(|error| Invalid {
        option: "--postgres-url",
        problem: format!("{error}"),
    })?;
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(connect.application_name("waypost-keygen"));
    let store = PostgresCounters::new(pool);
    let keygen = Keygen::new(store.clone(), mint, &process.registry)?;

    let shutdown = process.shutdown.clone();
    let reached = process.readiness.condition("database reached");
    let prepare = prepare(store, reached);
    let address = listener.local_addr().unwrap_or(options.listen);
    tracing::info!(%address, "serving");
    let server = waypost_proto::transport::server()
        .add_service(KeygenServiceServer::with_interceptor(
            keygen,
            token.required(),
        ))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.requested(),
        );
    let mut server = std::pin::pin!(server);
    let served = tokio::select! {
        served = &mut server => served,
        failed = prepare => {
            failed?;
            server.await
        }
    };
    served.map_err(|error| Error::failed("serve gRPC", error))
}

/// Makes the schema as soon as the database can be reached: the process answers
/// its probes meanwhile, and leases fail as unavailable.
async fn prepare(store: PostgresCounters, reached: Condition) -> Result<(), Error> {
    use sqlx::migrate::MigrateError;
    let mut warned = false;
    loop {
        match store.migrate().await {
            Ok(()) => {
                reached.set(true);
                return Ok(());
            }
            Err(error @ (MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))) => {
                if !warned {
                    tracing::warn!(%error, "database not reached, trying again");
                    warned = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            // The schema is of another release: trying again changes nothing.
            Err(error) => return Err(Error::failed("prepare the key counters", error)),
        }
    }
}

fn service_token(options: &Options) -> Result<ServiceToken, Invalid> {
    const NAME: &str = "service-token";
    ServiceToken::parse(&secrets::read(&options.secrets_dir, NAME)?)
        .ok_or_else(|| secrets::malformed(NAME, "expected 16 to 512 visible ASCII characters"))
}

fn slug_key(options: &Options) -> Result<[u8; 32], Invalid> {
    const NAME: &str = "slug-key";
    parse_hex(&secrets::read(&options.secrets_dir, NAME)?)
        .ok_or_else(|| secrets::malformed(NAME, "expected 64 hex digits"))
}
