use std::net::TcpStream;

use waypost_testbed::proxy::Mode;
use waypost_testbed::{Broker, Sandbox};

#[test]
fn a_broker_has_its_topic_when_it_has_started_and_again_after_a_restart() {
    let broker = Broker::start().unwrap();
    assert!(TcpStream::connect(broker.servers()).is_ok());
    if broker.pid().is_none() {
        return; // Somebody's own Kafka is not to be broken.
    }
    broker.pause().unwrap();
    broker.resume().unwrap();
    broker.kill().unwrap();
    assert!(TcpStream::connect(broker.servers()).is_err());
    // Returns only when the broker has answered about the topic.
    broker.restart().unwrap();
}

#[test]
fn a_proxied_broker_is_out_of_reach_while_it_is_cut() {
    let sandbox = Sandbox::create().unwrap();
    let (broker, proxy) = Broker::start_proxied_in(&sandbox).unwrap();
    assert_ne!(broker.servers(), proxy.address());
    proxy.set(Mode::Cut);
    assert!(TcpStream::connect(proxy.address()).is_err());
    proxy.set(Mode::Pass);
    assert!(TcpStream::connect(proxy.address()).is_ok());
}
