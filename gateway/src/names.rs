//! Nodes behind names: in a shard map a name may stand for several nodes, which come and
//! go (a headless Service of Kubernetes). Each of its addresses is a node of its own,
//! since only one node of a shard streams its changes and a call that failed at one
//! goes to another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;

use crate::cluster::Caller;
use crate::shards::{Node, Nodes};

/// Between two looks: a node that was added is asked within this and what the name
/// servers keep an answer for. One that went away is noticed by its connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For one look; the start waits for the first one no longer.
const LOOK: Duration = Duration::from_secs(1);

/// Addresses of one name. A shard with so many nodes has another problem.
const MAX_ADDRESSES: usize = 64;

/// A name as the map has it, `host:port`, and how its addresses are connected to.
pub(crate) type Name = (String, Endpoint);

/// The nodes of one shard: those that are `fixed`, and those behind the names, for as
/// long as the process runs.
pub(crate) async fn follow(fixed: Vec<Arc<Node>>, names: Vec<Name>, caller: Caller) -> Nodes {
    let nodes = Nodes::default();
    nodes.set(fixed.clone());
    if names.is_empty() {
        return nodes;
    }
    let mut behind = Behind {
        known: names.iter().map(|_| BTreeMap::new()).collect(),
        names,
        caller,
    };
    behind.look().await;
    nodes.set(behind.with(&fixed));
    let followed = nodes.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if behind.look().await {
                let now = behind.with(&fixed);
                tracing::info!(count = now.len(), names = ?behind, "nodes of a shard changed");
                followed.set(now);
            }
        }
    });
    nodes
}

struct Behind {
    names: Vec<Name>,
    /// Of each name.
    known: Vec<BTreeMap<SocketAddr, Arc<Node>>>,
    caller: Caller,
}

impl Behind {
    /// Looks all names up; answers whether that changed anything. Without an answer
    /// what was known stays: nodes do not go away because a name server does.
    async fn look(&mut self) -> bool {
        let mut is_changed = false;
        for ((name, endpoint), known) in self.names.iter().zip(&mut self.known) {
            let found = match tokio::time::timeout(LOOK, tokio::net::lookup_host(name)).await {
                Ok(Ok(found)) => of_one_family(found),
                Ok(Err(error)) => {
                    tracing::debug!(name, %error, "name not found, its nodes stay");
                    continue;
                }
                Err(_) => continue,
            };
            if found.is_empty() {
                continue;
            }
            let before = known.len();
            known.retain(|address, _| found.contains(address));
            is_changed |= known.len() < before;
            for address in found {
                known.entry(address).or_insert_with(|| {
                    is_changed = true;
                    Node::new(self.caller.to_address(endpoint, address))
                });
            }
        }
        is_changed
    }

    fn with(&self, fixed: &[Arc<Node>]) -> Vec<Arc<Node>> {
        let behind = self.known.iter().flat_map(BTreeMap::values);
        fixed.iter().chain(behind).cloned().collect()
    }
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.names.iter().map(|(name, _)| name))
            .finish()
    }
}

/// A node with two addresses is one node: IPv4 if there is any.
fn of_one_family(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for address in found {
        let family = if address.is_ipv4() {
            &mut four
        } else {
            &mut six
        };
        if !family.contains(&address) && family.len() < MAX_ADDRESSES {
            family.push(address);
        }
    }
    if four.is_empty() { six } else { four }
}

#[cfg(test)]
mod tests {
    use waypost_proto::auth::ServiceToken;

    use super::*;

    #[test]
    fn a_node_with_addresses_of_both_families_is_one_node() {
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (four, six) = (address("127.0.0.1:1"), address("[::1]:1"));
        assert_eq!(of_one_family([six, four, four].into_iter()), [four]);
        assert_eq!(of_one_family([six, six].into_iter()), [six]);
    }

    fn behind(name: &str) -> Behind {
        let endpoint = Endpoint::from_shared(format!("http://{name}")).unwrap();
        Behind {
            names: vec![(name.to_owned(), endpoint)],
            known: vec![BTreeMap::new()],
            caller: Caller::plain(ServiceToken::parse("0123456789abcdef").unwrap()),
        }
    }

    #[tokio::test]
    async fn what_is_behind_a_name_is_kept_while_it_stays_there() {
        let mut localhost = behind("localhost:1");
        assert!(localhost.look().await);
        let before = localhost.with(&[]);
        assert_eq!(before.len(), 1);
        assert!(!localhost.look().await, "nothing has changed");
        assert!(Arc::ptr_eq(&before[0], &localhost.with(&[])[0]));
        // One that the name no longer stands for.
        let gone = "192.0.2.1:1".parse().unwrap();
        let other = Arc::clone(&before[0]);
        localhost.known[0].insert(gone, other);
        assert!(localhost.look().await);
        assert_eq!(localhost.with(&[]).len(), 1);
    }

    #[tokio::test]
    async fn nodes_stay_while_their_name_cannot_be_looked_up() {
        let mut nameless = behind("no-such-name.invalid:1");
        let localhost = {
            let mut localhost = behind("localhost:1");
            localhost.look().await;
            localhost.with(&[]).remove(0)
        };
        let address = "192.0.2.1:1".parse().unwrap();
        nameless.known[0].insert(address, localhost);
        assert!(!nameless.look().await);
        assert_eq!(nameless.with(&[]).len(), 1);
    }
}
