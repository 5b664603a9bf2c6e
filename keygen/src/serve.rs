//! The process: bind, build, ready, serve, drain.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tonic::service::Routes;
use waypost_domain::mint::Mint;
use waypost_domain::signature::parse_hex;
use waypost_proto::auth::ServiceToken;
use waypost_proto::keygen::keygen_service_server::KeygenServiceServer;
use waypost_runtime::{Error, Process, database, grpc, secrets};

use crate::store::PostgresCounters;
use crate::{Keygen, Options};

/// Leases are few and each holds its rows for some milliseconds.
const MAX_CONNECTIONS: u32 = 8;

/// A lease that gets no connection within this is refused; the caller has others
/// to ask.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a keygen until shutdown is asked for.
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
    let folder = &options.secrets_dir;
    let tls = options.tls.open(&process)?;
    let (secret, expected) = (ServiceToken::SECRET, ServiceToken::EXPECTED);
    let token = secrets::parse(folder, secret, expected, ServiceToken::parse)?;
    let slug_key = secrets::parse(folder, "slug-key", "64 hex digits", parse_hex)?;
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.postgres.connect("waypost-keygen")?);
    let store = PostgresCounters::new(pool);
    if options.migrate_only {
        let migrate = || store.migrate();
        let is_permanent = database::Error::is_permanent;
        return database::prepare_only(&process.shutdown, migrate, is_permanent).await;
    }
    let keygen = Keygen::new(store.clone(), Mint::new(&slug_key), &process.registry)?;

    let shutdown = &process.shutdown;
    let preparing = async {
        let migrate = || store.migrate();
        let prepared = database::prepare(shutdown, migrate, database::Error::is_permanent);
        reached.set(prepared.await?);
        Ok(())
    };
    let serving = async {
        let service = KeygenServiceServer::with_interceptor(keygen, token.required());
        grpc::serve(Routes::new(service), listener, tls, shutdown.requested())
            .await
            .map_err(|error| Error::failed("serve gRPC", error))
    };
    tokio::try_join!(preparing, serving).map(drop)
}
