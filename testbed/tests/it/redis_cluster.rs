use waypost_testbed::{RedisCluster, RedisNode};

use crate::patience::wait_until;

/// The slot of "foo" is 12182: the third master's.
fn write_at(node: &RedisNode) -> bool {
    node.query("SET foo bar").is_ok()
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
    let cluster = RedisCluster::start().unwrap();
    let (masters, replicas) = cluster.nodes().split_at(3);
    assert!(masters.iter().all(RedisNode::is_master));
    assert!(!replicas.iter().any(RedisNode::is_master));
    assert!(write_at(&masters[2]));
    wait_until("the replica has the key", || {
        let count = replicas[2].query("DBSIZE");
        count.is_ok_and(|count| count == "1")
    });
    masters[2].kill().unwrap();
    wait_until("the replica takes writes", || write_at(&replicas[2]));
    assert_eq!(replicas[2].query("GET foo").unwrap(), "bar");
    cluster.restart().unwrap();
    assert!(!masters[2].is_master());
}

#[test]
fn a_cluster_killed_and_paused_as_a_whole_comes_back_on_its_addresses() {
    let cluster = RedisCluster::start().unwrap();
    let addresses = cluster.addresses();
    cluster.kill().unwrap();
    assert!(!write_at(&cluster.nodes()[2]));
    cluster.restart().unwrap();
    assert_eq!(cluster.addresses(), addresses);
    cluster.pause().unwrap();
    assert!(cluster.nodes()[0].query("PING").is_err());
    cluster.resume().unwrap();
    cluster.wait_ok().unwrap();
    let mut nodes = cluster.nodes().iter();
    assert!(nodes.any(write_at));
}
