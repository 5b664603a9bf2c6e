//! Mutual TLS between our services.
//!
//! Each process shows a certificate and believes the others' if one of its authorities
//! has signed them. The files are read again when they change, as they do every few hours
//! where certificates are short-lived: the next handshake is made with the new ones, and
//! connections that stand go on with what they began with.

pub(crate) mod certificates;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, Error as Rustls, InvalidMessage};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::config::Invalid;
use crate::metrics::{self, Label, Registry};
use crate::watched::{Source, Watched, Watcher};
use crate::{Error, Process};
use certificates::{MAX_BYTES, Pair};

/// For the handshake of somebody who has connected: two round trips and a signature.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Between two warnings about handshakes of one side. Who is refused tries again and
/// again.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The certificates of calls between services.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsOptions {
    /// This process's certificate for calls between services, and those between it and
    /// its authority: a PEM file. With --tls-key and --tls-ca, calls go over TLS 1.3 and
    /// both sides show a certificate; read again when it changes; none of the three:
    /// calls are not encrypted
    #[arg(long, env = "WAYPOST_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, a PEM file
    #[arg(long, env = "WAYPOST_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// The authorities whose certificates other services may show, a PEM file; of this
    /// cluster alone: whoever has one of theirs is let in
    #[arg(long, env = "WAYPOST_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

/// What this process makes handshakes with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    pair: Watched<Pair>,
    failures: Failures,
}

impl TlsOptions {
    /// Reads the files, and again when they change; `None` where no option is set.
    ///
    /// # Errors
    /// If some of the options are set and not all, or the files are nothing that another
    /// service would accept.
    pub fn open(&self, process: &Process) -> Result<Option<Tls>, Error> {
        self.watch(&process.registry, &process.watcher)
    }

    /// The same for a command, which nobody asks for metrics.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for_command(&self) -> Result<Option<Tls>, Error> {
        let registry = Registry::new();
        let watcher = Watcher::register(&registry)
            .map_err(|error| Error::failed("register the metrics of files", error))?;
        self.watch(&registry, &watcher)
    }

    fn watch(&self, registry: &Registry, watcher: &Watcher) -> Result<Option<Tls>, Error> {
        let files = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-ca", &self.tls_ca),
        ];
        let failures = Failures::register(registry)
            .map_err(|error| Error::failed("register the metrics of TLS", error))?;
        if files.iter().all(|(_, file)| file.is_none()) {
            return Ok(None);
        }
        let files = files
            .into_iter()
            .map(|(option, file)| {
                file.clone().ok_or_else(|| Invalid {
                    option,
                    problem: "missing; --tls-cert, --tls-key and --tls-ca go together".to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let source = Source {
            option: "--tls-cert",
            name: "tls",
            files,
            max_bytes: MAX_BYTES,
        };
        let shown = watcher.clone();
        let pair = watcher.watch(source, move |contents| {
            let (pair, validity) = certificates::pair(contents)?;
            shown.show_validity("tls", validity);
            Ok(pair)
        })?;
        Ok(Some(Tls { pair, failures }))
    }
}

impl Tls {
    /// Makes the handshake that a peer has come for. `None`: it was refused, and logged.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<server::TlsStream<TcpStream>> {
        let peer = stream.peer_addr().ok();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.pair.load().server));
        let error = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.failures.note(
            "server",
            peer.map(|peer| peer.to_string()).as_deref(),
            &error,
        );
        None
    }

    /// Makes a handshake with the service of that name or address, to which the stream
    /// leads. How long it may take, the caller says.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.pair.load().client));
        let connected = connector.connect(name, stream).await;
        connected.inspect_err(|error| {
            self.failures.note("client", Some(host), error);
        })
    }
}

/// Registers the metrics of TLS, for those who want to know which there are.
///
/// # Errors
/// If the registry has metrics of these names already.
pub fn register_metrics(registry: &Registry) -> metrics::Result<()> {
    Failures::register(registry).map(drop)
}

/// Counts handshakes that came to nothing, and tells of some.
#[derive(Debug, Clone)]
struct Failures {
    total: IntCounterVec,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl Failures {
    fn register(registry: &Registry) -> metrics::Result<Self> {
        let total = registry.counters(
            "waypost_tls_handshake_failures_total",
            "Handshakes between services that came to nothing, by which side this process was",
            &[Label::one_of("side", &["server", "client"])],
        )?;
        Ok(Self {
            total,
            warned: Arc::default(),
        })
    }

    /// The peer is a service, so that its address may be told.
    fn note(&self, side: &str, peer: Option<&str>, error: &io::Error) {
        self.total.with_label_values(&[side]).inc();
        if error.kind() == io::ErrorKind::UnexpectedEof {
            // A probe that connects and goes, or a process that was killed.
            tracing::debug!(side, peer, %error, "tls handshake broken off");
            return;
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            *warned = Some(Instant::now());
            let advice = advice(error);
            tracing::warn!(side, peer, %error, advice, "tls handshake failed");
        }
    }
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Rustls::NoCertificatesPresented) => "start the peer with --tls-cert, too",
        Some(Rustls::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the peer speaks no TLS: start it with --tls-cert, too"
        }
        Some(Rustls::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the peer's certificate is of no authority in --tls-ca: add its authority on both sides before either has a certificate of it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "see why the peer's certificate was not renewed, and whether both clocks are right"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "have the peer's certificate name the host by which it is reached, as a subject alternative name"
            }
            _ => "look at the peer's certificate with openssl x509 -text",
        },
        Some(Rustls::AlertReceived(_)) => {
            "the peer has refused this process's certificate: its log says why"
        }
        _ if error.kind() == io::ErrorKind::TimedOut => "see whether the peer is overloaded",
        _ => "see the peer's log",
    }
}

#[cfg(test)]
mod tests;
