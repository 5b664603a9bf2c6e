//! A Kafka-compatible broker with the topic of clicks.

mod topic;
mod wheel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache;
use crate::certificates::Mount;
use crate::error::{Doing as _, Error, Result};
use crate::port::Port;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::sandbox::{Sandbox, Spec, StopSignal};
use crate::secret::random_hex;
use crate::server::Server;

/// Frozen: which partition holds a link's clicks follows from it.
const PARTITIONS: u32 = 12;

const READY_DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// The version of `nisshi` that was measured to count, group and order rightly.
pub const NISSHI_VERSION: &str = "0.8.1";

/// What answers when nobody's own Kafka is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `WAYPOST_KAFKA`: bootstrap servers of a running Kafka.
    External(String),
    /// Built by `cargo xtask broker`.
    Nisshi(PathBuf),
    /// An older relative out of a Python wheel, in seconds; its high watermarks
    /// are wrong, so nothing may rest on them.
    Wheel,
}

impl Source {
    /// Decides by the environment and by what the cache folder holds.
    ///
    /// # Errors
    /// If there is no cache folder.
    pub fn choose() -> Result<Self> {
        if let Some(servers) = std::env::var("WAYPOST_KAFKA")
            .ok()
            .filter(|servers| !servers.is_empty())
        {
            return Ok(Self::External(servers));
        }
        Self::own()
    }

    fn own() -> Result<Self> {
        let nisshi = nisshi_folder()?.join("bin/nisshi");
        Ok(if nisshi.is_file() {
            Self::Nisshi(nisshi)
        } else {
            Self::Wheel
        })
    }
}

/// Whether a start would have to fetch the wheel, for which it takes pip.
///
/// # Errors
/// If there is no cache folder.
pub fn is_to_be_fetched() -> Result<bool> {
    Ok(Source::choose()? == Source::Wheel && !wheel::path()?.is_file())
}

/// Where `cargo xtask broker` installs it.
///
/// # Errors
/// If there is no cache folder.
pub fn nisshi_folder() -> Result<PathBuf> {
    Ok(cache::folder()?.join(format!("nisshi-{NISSHI_VERSION}")))
}

/// A broker with one topic of 12 partitions. The log is in memory: "broker down" is
/// a pause, a cut connection (through a proxy), or a kill that loses everything.
#[derive(Debug)]
pub struct Broker {
    servers: String,
    topic: String,
    own: Option<(Process, Port)>,
    front: Option<Front>,
    is_stand_in: bool,
}

/// Takes connections over TLS, from who shows a certificate, for a broker that cannot.
#[derive(Debug)]
struct Front {
    port: Port,
    _socat: Server,
}

impl Broker {
    /// Starts a broker in a sandbox of its own, or uses the one in `WAYPOST_KAFKA`.
    ///
    /// # Errors
    /// If none can be had.
    pub fn start() -> Result<Self> {
        Self::start_in(&Sandbox::create()?)
    }

    /// Starts a broker; at most one in a sandbox.
    ///
    /// # Errors
    /// If none can be had.
    pub fn start_in(sandbox: &Arc<Sandbox>) -> Result<Self> {
        match Source::choose()? {
            Source::External(servers) => Self::external(servers),
            source => Self::own_at(sandbox, source, Port::reserve()?, None),
        }
    }

    /// Starts a broker that tells its clients to come through the proxy. It is
    /// always one of our own: somebody else's tells them its own address.
    ///
    /// # Errors
    /// If none can be had.
    pub fn start_proxied_in(sandbox: &Arc<Sandbox>) -> Result<(Self, Proxy)> {
        let port = Port::reserve()?;
        let proxy = Proxy::start(&port.address())?;
        let broker = Self::own_at(sandbox, Source::own()?, port, Some(&proxy.address()))?;
        Ok((broker, proxy))
    }

    /// Starts a broker of our own that tells its clients to come over TLS, with these
    /// certificates.
    ///
    /// # Errors
    /// If none can be had.
    pub fn start_secured_in(sandbox: &Arc<Sandbox>, mount: &Mount) -> Result<Self> {
        let (port, front) = (Port::reserve()?, Port::reserve()?);
        let broker = Self::own_at(sandbox, Source::own()?, port, Some(&front.address()))?;
        let listen = format!(
            "OPENSSL-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,verify=1,cert={},key={},cafile={}",
            front.number(),
            mount.certificate().display(),
            mount.key().display(),
            mount.authorities().display(),
        );
        let arguments = vec![listen, format!("TCP:{}", broker.servers)];
        let address = front.address();
        let socat = Server::start_in(sandbox, "broker-tls", "socat", arguments, &address)?;
        Ok(Self {
            front: Some(Front {
                port: front,
                _socat: socat,
            }),
            ..broker
        })
    }

    fn own_at(
        sandbox: &Arc<Sandbox>,
        source: Source,
        port: Port,
        advertised: Option<&str>,
    ) -> Result<Self> {
        let is_stand_in = source == Source::Wheel;
        let (program, engine) = match source {
            Source::External(servers) => return Self::external(servers),
            Source::Nisshi(program) => (program, "memory://nisshi/"),
            Source::Wheel => (wheel::program()?, "memory://tansu/"),
        };
        let servers = port.address();
        let advertised = advertised.unwrap_or(&servers);
        let arguments = [
            "broker",
            "--listener-url",
            &format!("tcp://{servers}"),
            "--advertised-listener-url",
            &format!("tcp://{advertised}"),
            "--storage-engine",
            engine,
            "--silent",
        ];
        let spec = Spec {
            name: "broker".to_owned(),
            program,
            arguments: arguments.map(str::to_owned).to_vec(),
            // Tests need not wait for members who never come.
            environment: vec![("GROUP_INITIAL_REBALANCE_DELAY".to_owned(), "0s".to_owned())],
            user: None,
            stop_signal: StopSignal::Kill,
        };
        let broker = Self {
            servers,
            topic: "clicks".to_owned(),
            own: Some((Process::start(sandbox, spec)?, port)),
            front: None,
            is_stand_in,
        };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Others may use it, too, so the topic has a name of its own.
    fn external(servers: String) -> Result<Self> {
        let topic = format!("clicks-{}", random_hex(6)?);
        let first = servers.split(',').next().unwrap_or_default();
        let action = || format!("create topic {topic} at {first}");
        topic::create(first, &topic, PARTITIONS).doing(action)?;
        Ok(Self {
            servers,
            topic,
            own: None,
            front: None,
            is_stand_in: false,
        })
    }

    /// Ready when it has the topic: made by itself it might have another number of
    /// partitions.
    fn wait_ready(&self) -> Result<()> {
        let (process, _) = self.own()?;
        let mut last: Option<Instant> = None;
        process.wait_until("wait for", READY_DEADLINE, || {
            if last.is_some_and(|at| at.elapsed() < POLL) {
                return false;
            }
            last = Some(Instant::now());
            topic::create(&self.servers, &self.topic, PARTITIONS).is_ok()
        })
    }

    /// Bootstrap servers: `host:port`, separated by commas.
    #[must_use]
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Where clients come over TLS, if they do.
    #[must_use]
    pub fn secured(&self) -> Option<String> {
        self.front.as_ref().map(|front| front.port.address())
    }

    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether it is the prebuilt older one. A consumer that lives through a restart
    /// of it breaks: it then answers fetches without a topic's id, which Kafka never
    /// does, and librdkafka 2.12 reads through a null pointer.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        self.is_stand_in
    }

    /// None if it is not ours.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(|(process, _)| process.pid())
    }

    /// Freezes it: connections stay and nothing is answered.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn pause(&self) -> Result<()> {
        self.own()?.0.pause()
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn resume(&self) -> Result<()> {
        self.own()?.0.resume()
    }

    /// # Errors
    /// If it is not ours or does not end.
    pub fn kill(&self) -> Result<()> {
        self.own()?.0.kill()
    }

    /// Starts it again on the same port, with the topic and nothing in it.
    ///
    /// # Errors
    /// If it is not ours or does not come up.
    pub fn restart(&self) -> Result<()> {
        self.own()?.0.start_again()?;
        self.wait_ready()
    }

    fn own(&self) -> Result<&(Process, Port)> {
        self.own.as_ref().ok_or_else(|| {
            Error::Refused("the broker named by WAYPOST_KAFKA is not ours".to_owned())
        })
    }
}
