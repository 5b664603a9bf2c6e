//! A real Redis Cluster: three masters, three replicas.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::certificates::Mount;
use crate::error::{Doing as _, Error, Result, write};
use crate::port::Port;
use crate::process::Process;
use crate::program;
use crate::resp;
use crate::sandbox::{Sandbox, Spec, StopSignal};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Redis itself waits two seconds before a started master takes writes, and a
/// failover takes about three.
const READY_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// As in production, except for the memory: a cache, so nothing is written to
/// disk, and one dead shard must not take the others' keys along. Failover begins
/// after two seconds.
const SETTINGS: &str = "
bind 127.0.0.1
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-require-full-coverage no
cluster-allow-replica-migration no
save \"\"
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lfu
repl-diskless-sync yes
repl-diskless-sync-delay 0
";

/// Six nodes on free ports of loopback.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisNode>,
}

/// One `redis-server`.
#[derive(Debug)]
pub struct RedisNode {
    process: Process,
    /// In the clear. With TLS it is there for us alone.
    port: Port,
    /// For clients that have certificates, and for the other nodes.
    tls: Option<Port>,
}

impl RedisCluster {
    /// Starts a cluster in a sandbox of its own.
    ///
    /// # Errors
    /// If Redis is not installed or the cluster does not form.
    pub fn start() -> Result<Self> {
        Self::start_in(&Sandbox::create()?)
    }

    /// Starts a cluster; at most one in a sandbox.
    ///
    /// # Errors
    /// If Redis is not installed or the cluster does not form.
    pub fn start_in(sandbox: &Arc<Sandbox>) -> Result<Self> {
        Self::with(sandbox, None)
    }

    /// The same, with these certificates: [`RedisCluster::addresses`] are ports that speak
    /// TLS and ask for a certificate, and so do the nodes among themselves.
    ///
    /// # Errors
    /// If Redis is not installed or the cluster does not form.
    pub fn start_secured_in(sandbox: &Arc<Sandbox>, mount: &Mount) -> Result<Self> {
        Self::with(sandbox, Some(mount))
    }

    fn with(sandbox: &Arc<Sandbox>, mount: Option<&Mount>) -> Result<Self> {
        let nodes = (0..2 * MASTERS)
            .map(|index| RedisNode::start(sandbox, index, mount))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            node.wait_for("an answer of", || node.query("PING").is_ok())?;
        }
        cluster.form()?;
        cluster.wait_ok()?;
        Ok(cluster)
    }

    /// What `redis-cli --cluster create` does, without its pauses.
    fn form(&self) -> Result<()> {
        let (masters, replicas) = self.nodes.split_at(MASTERS);
        for (index, node) in self.nodes.iter().enumerate() {
            // Different from the start, so that the nodes need not settle it.
            node.query(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1))?;
        }
        for (index, master) in masters.iter().enumerate() {
            let first = index * SLOTS / MASTERS;
            let last = (index + 1) * SLOTS / MASTERS - 1;
            master.query(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
        }
        let (first, others) = self.nodes.split_first().expect("there are six nodes");
        for other in others {
            first.query(&format!("CLUSTER MEET 127.0.0.1 {}", other.main().number()))?;
        }
        for (master, replica) in masters.iter().zip(replicas) {
            let id = master.query("CLUSTER MYID")?;
            replica.wait_for("the acquaintance of", || {
                replica.query(&format!("CLUSTER REPLICATE {id}")).is_ok()
            })?;
        }
        Ok(())
    }

    /// Waits until every node that runs says that the cluster is whole, and every
    /// replica among them follows its master.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn wait_ok(&self) -> Result<()> {
        for node in self.running() {
            node.wait_for("a whole cluster around", || node.is_settled())?;
        }
        Ok(())
    }

    /// All six; at first the masters are in front.
    #[must_use]
    pub fn nodes(&self) -> &[RedisNode] {
        &self.nodes
    }

    /// The master and the replica that have a key, in the roles that they began with.
    ///
    /// # Errors
    /// If no node says where the key belongs.
    pub fn home_of(&self, key: &str) -> Result<[&RedisNode; 2]> {
        let slot = self.nodes[0].query(&format!("CLUSTER KEYSLOT {key}"))?;
        let slot: usize = slot.parse().unwrap_or_default();
        let master = (0..MASTERS)
            .rfind(|index| index * SLOTS / MASTERS <= slot)
            .expect("the first master's slots begin with 0");
        Ok([&self.nodes[master], &self.nodes[MASTERS + master]])
    }

    /// `host:port` of each.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(RedisNode::address).collect()
    }

    /// # Errors
    /// If a node does not end.
    pub fn kill(&self) -> Result<()> {
        self.nodes.iter().try_for_each(RedisNode::kill)
    }

    /// # Errors
    /// If a signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.nodes.iter().try_for_each(RedisNode::pause)
    }

    /// # Errors
    /// If a signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.nodes.iter().try_for_each(RedisNode::resume)
    }

    /// Starts every node that is down, empty, and waits until the cluster is whole.
    ///
    /// # Errors
    /// If it does not become so.
    pub fn restart(&self) -> Result<()> {
        for node in &self.nodes {
            if node.process.ended().is_some() {
                node.process.start_again()?;
            }
        }
        self.wait_ok()
    }

    /// Has the nodes read their certificates again; connections that stand go on.
    ///
    /// # Errors
    /// If a node cannot use what it reads.
    pub fn renew(&self, mount: &Mount) -> Result<()> {
        let command = format!(
            "CONFIG SET tls-cert-file {} tls-key-file {} tls-ca-cert-file {}",
            mount.certificate().display(),
            mount.key().display(),
            mount.authorities().display(),
        );
        self.running()
            .try_for_each(|node| node.query(&command).map(drop))
    }

    fn running(&self) -> impl Iterator<Item = &RedisNode> {
        self.nodes
            .iter()
            .filter(|node| node.process.ended().is_none())
    }
}

fn secured((mount, port): (&Mount, &Port)) -> String {
    format!(
        "tls-port {}\ntls-cluster yes\ntls-replication yes\ntls-auth-clients yes\n\
         tls-protocols TLSv1.3\ntls-cert-file \"{}\"\ntls-key-file \"{}\"\ntls-ca-cert-file \"{}\"\n",
        port.number(),
        mount.certificate().display(),
        mount.key().display(),
        mount.authorities().display(),
    )
}

impl RedisNode {
    fn start(sandbox: &Arc<Sandbox>, index: usize, mount: Option<&Mount>) -> Result<Self> {
        let program = program::in_path("redis-server").ok_or_else(|| Error::Missing {
            what: "redis-server".to_owned(),
            remedy: "install the package redis-server".to_owned(),
        })?;
        let port = Port::reserve_for_redis()?;
        let name = format!("redis-{index}");
        let folder = sandbox.folder().join(&name);
        fs::create_dir(&folder).doing(|| format!("create {}", folder.display()))?;
        let file = folder.join("redis.conf");
        let place = format!("port {}\ndir \"{}\"\n", port.number(), folder.display());
        let tls = mount.map(|_| Port::reserve_for_redis()).transpose()?;
        let secured = mount.zip(tls.as_ref()).map(secured).unwrap_or_default();
        write(&file, format!("{SETTINGS}{place}{secured}"))?;
        let spec = Spec {
            name,
            program,
            arguments: vec![file.display().to_string()],
            environment: Vec::new(),
            user: None,
            stop_signal: StopSignal::Kill,
        };
        let process = Process::start(sandbox, spec)?;
        Ok(Self { process, port, tls })
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        self.main().address()
    }

    /// Where clients and the other nodes come.
    fn main(&self) -> &Port {
        self.tls.as_ref().unwrap_or(&self.port)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends words separated by spaces to this very node and answers text.
    ///
    /// # Errors
    /// If it does not answer within two seconds, or with an error.
    pub fn query(&self, command: &str) -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()));
        let action = || format!("ask {}", self.process.name());
        resp::query(address, command).doing(action)
    }

    /// Whether it takes writes, by its own word.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.query("INFO replication")
            .is_ok_and(|info| info.contains("role:master"))
    }

    /// Lets a replica catch up with its master and then hear no more of it, as one
    /// that lags behind: what the master takes from now on is lost with the master.
    ///
    /// # Errors
    /// If it does not catch up.
    pub fn lag_behind(&self, master: &Self) -> Result<()> {
        let offset = |node: &Self, field: &str| {
            let info = node.query("INFO replication").ok()?;
            info.lines()
                .find_map(|line| line.strip_prefix(field).map(str::to_owned))
        };
        self.wait_for("the last writes at", || {
            let there = offset(master, "master_repl_offset:");
            there.is_some() && there == offset(self, "slave_repl_offset:")
        })?;
        // Masters without a password refuse whoever names one.
        self.query("CONFIG SET masterauth unknown")?;
        self.query("CLIENT KILL TYPE master")?;
        self.wait_for("the lost link of", || {
            offset(self, "master_link_status:").is_some_and(|status| status == "down")
        })
    }

    /// # Errors
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    fn is_settled(&self) -> bool {
        let Ok(cluster) = self.query("CLUSTER INFO") else {
            return false;
        };
        let Ok(replication) = self.query("INFO replication") else {
            return false;
        };
        cluster.contains("cluster_state:ok")
            && cluster.contains(&format!("cluster_slots_ok:{SLOTS}"))
            && cluster.contains(&format!("cluster_known_nodes:{}", 2 * MASTERS))
            && cluster.contains(&format!("cluster_size:{MASTERS}"))
            && (replication.contains("role:master")
                || replication.contains("master_link_status:up"))
    }

    fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
        let mut last = Instant::now();
        let action = format!("wait for {what}");
        self.process.wait_until(&action, READY_DEADLINE, || {
            // Each look is a connection or two.
            if last.elapsed() < POLL {
                return false;
            }
            last = Instant::now();
            holds()
        })
    }
}
