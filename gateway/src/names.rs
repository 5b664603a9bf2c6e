//! Nodes behind names: in a shard map a name may stand for several nodes, which come and
//! go (a headless Service of Kubernetes). Each of its addresses is a node of its own,
//! since only one node of a shard streams its changes and a call that failed at one
//! goes to another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::Endpoint;

use crate::cluster::{Caller, MAP_OPTION};
use crate::shards::{Node, Nodes};

/// Between two looks: a node that was added is asked within this and what the name
/// servers keep an answer for. One that went away is noticed by its connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For one look; the start waits for the first one no longer.
const LOOK: Duration = Duration::from_secs(1);

/// Addresses of one name. A shard with so many nodes has another problem.
const MAX_ADDRESSES: usize = 64;

/// The nodes of one shard: those that are listed by their address, and those behind the
/// names that are listed, until the list ends.
pub(crate) async fn follow(mut listed: watch::Receiver<Vec<String>>, caller: Caller) -> Nodes {
    let nodes = Nodes::default();
    let mut behind = Behind {
        entries: BTreeMap::new(),
        caller,
    };
    behind.list(&listed.borrow_and_update());
    behind.look().await;
    nodes.set(behind.nodes());
    let followed = nodes.clone();
    tokio::spawn(async move {
        loop {
            let is_listed_anew = tokio::select! {
                changed = listed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    behind.list(&listed.borrow_and_update());
                    // At once: a name may take a while.
                    followed.set(behind.nodes());
                    true
                }
                () = tokio::time::sleep(LOOK_EVERY), if behind.has_names() => false,
            };
            if behind.look().await || is_listed_anew {
                let now = behind.nodes();
                tracing::info!(count = now.len(), listed = ?behind, "nodes of a shard changed");
                followed.set(now);
            }
        }
    });
    nodes
}

struct Behind {
    /// By what the map calls them, `host:port`.
    entries: BTreeMap<String, Entry>,
    caller: Caller,
}

struct Entry {
    /// `None`: it is an address, which stands for itself.
    name: Option<Endpoint>,
    known: BTreeMap<SocketAddr, Arc<Node>>,
}

impl Behind {
    /// From now on these. What is listed as before keeps its connections.
    fn list(&mut self, listed: &[String]) {
        self.entries.retain(|name, entry| {
            let stays = listed.contains(name);
            if !stays {
                entry.known.values().for_each(|node| node.dismiss());
            }
            stays
        });
        for name in listed {
            if self.entries.contains_key(name) {
                continue;
            }
            let Ok(endpoint) = self.caller.endpoint(MAP_OPTION, name) else {
                // A map with such a name was refused when it was read.
                continue;
            };
            let entry = match name.parse() {
                Ok(address) => Entry {
                    known: [(address, Node::new(self.caller.to(&endpoint)))].into(),
                    name: None,
                },
                Err(_) => Entry {
                    known: BTreeMap::new(),
                    name: Some(endpoint),
                },
            };
            self.entries.insert(name.clone(), entry);
        }
    }

    fn has_names(&self) -> bool {
        self.entries.values().any(|entry| entry.name.is_some())
    }

    /// Looks all names up; answers whether that changed anything. Without an answer
    /// what was known stays: nodes do not go away because a name server does.
    async fn look(&mut self) -> bool {
        let mut is_changed = false;
        for (
            name,
            Entry {
                name: endpoint,
                known,
            },
        ) in &mut self.entries
        {
            let Some(endpoint) = endpoint else {
                continue;
            };
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

    fn nodes(&self) -> Vec<Arc<Node>> {
        let entries = self.entries.values();
        entries
            .flat_map(|entry| entry.known.values().cloned())
            .collect()
    }
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.keys()).finish()
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

    fn behind(listed: &[&str]) -> Behind {
        let mut behind = Behind {
            entries: BTreeMap::new(),
            caller: Caller::plain(ServiceToken::parse("0123456789abcdef").unwrap()),
        };
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        behind.list(&listed);
        behind
    }

    fn known<'a>(behind: &'a mut Behind, name: &str) -> &'a mut BTreeMap<SocketAddr, Arc<Node>> {
        &mut behind.entries.get_mut(name).unwrap().known
    }

    #[tokio::test]
    async fn what_is_behind_a_name_is_kept_while_it_stays_there() {
        let mut localhost = behind(&["localhost:1"]);
        assert!(localhost.look().await);
        let before = localhost.nodes();
        assert_eq!(before.len(), 1);
        assert!(!localhost.look().await, "nothing has changed");
        assert!(Arc::ptr_eq(&before[0], &localhost.nodes()[0]));
        // One that the name no longer stands for.
        let gone = "192.0.2.1:1".parse().unwrap();
        known(&mut localhost, "localhost:1").insert(gone, Arc::clone(&before[0]));
        assert!(localhost.look().await);
        assert_eq!(localhost.nodes().len(), 1);
        assert!(!before[0].is_dismissed());
    }

    #[tokio::test]
    async fn nodes_stay_while_their_name_cannot_be_looked_up() {
        let mut nameless = behind(&["no-such-name.invalid:1"]);
        let mut localhost = behind(&["localhost:1"]);
        localhost.look().await;
        let address = "192.0.2.1:1".parse().unwrap();
        known(&mut nameless, "no-such-name.invalid:1").insert(address, localhost.nodes().remove(0));
        assert!(!nameless.look().await);
        assert_eq!(nameless.nodes().len(), 1);
    }

    #[tokio::test]
    async fn a_changed_list_keeps_the_nodes_that_stay_and_dismisses_those_that_go() {
        let list =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let (set, listed) = watch::channel(list(&["127.0.0.1:1", "127.0.0.1:2", "localhost:3"]));
        let caller = behind(&[]).caller;
        let nodes = follow(listed, caller).await;
        let before = nodes.now();
        assert_eq!(before.len(), 3);
        set.send_replace(list(&["127.0.0.1:2", "127.0.0.1:4"]));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while nodes.now().len() != 2 {
            assert!(tokio::time::Instant::now() < deadline, "{nodes:?}");
            tokio::task::yield_now().await;
        }
        let after = nodes.now();
        let stayed = |node: &Arc<Node>| after.iter().any(|other| Arc::ptr_eq(node, other));
        for node in before.iter() {
            assert_eq!(node.is_dismissed(), !stayed(node));
        }
        assert_eq!(before.iter().filter(|node| stayed(node)).count(), 1);
        // The shard is gone.
        set.send_replace(Vec::new());
        drop(set);
        while !nodes.now().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "{nodes:?}");
            tokio::task::yield_now().await;
        }
    }
}
