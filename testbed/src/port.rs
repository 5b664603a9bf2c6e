//! Free ports of loopback that parallel tests do not take from each other.
//!
//! A port is held by a socket of its number in the abstract namespace, which all
//! processes of the machine share. The kernel removes it when its owner dies, so
//! nothing stale remains, and the port stays ours while its server is down.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::error::{Doing as _, Error, Result};

/// Below the range from which Linux takes the ports of outgoing connections
/// (32768 on), so that a connection of another process never sits on a port
/// while its server restarts.
const RANGE: Range<u16> = 12_000..21_000;

/// A Redis Cluster node listens there too, above its own port, for its peers;
/// with [`RANGE`] that ends below the range of outgoing connections.
const BUS_OFFSET: u16 = 10_000;

/// A port of 127.0.0.1 that nobody else takes until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _hold: UnixListener,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Errors
    /// If every port is taken.
    pub fn reserve() -> Result<Self> {
        Self::find(is_free)
    }

    /// Takes a free port whose Redis Cluster bus port is free, too.
    pub(crate) fn reserve_for_redis() -> Result<Self> {
        Self::find(|port| is_free(port) && is_free(port + BUS_OFFSET))
    }

    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    fn find(is_usable: impl Fn(u16) -> bool) -> Result<Self> {
        // From a random place, so that parallel searches seldom meet.
        let start = getrandom::u32().unwrap_or(std::process::id()) as usize % RANGE.len();
        for number in RANGE.cycle().skip(start).take(RANGE.len()) {
            let hold = SocketAddr::from_abstract_name(format!("waypost-port-{number}"))
                .and_then(|name| UnixListener::bind_addr(&name));
            match hold {
                Ok(hold) if is_usable(number) => {
                    return Ok(Self {
                        number,
                        _hold: hold,
                    });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).doing(|| format!("hold port {number}")),
            }
        }
        Err(Error::Missing {
            what: "a free port".to_owned(),
            remedy: format!("all of {RANGE:?} are taken"),
        })
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_held_port_is_given_to_nobody_else() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_port_somebody_listens_on_is_passed_over() {
        let port = Port::reserve().unwrap();
        let _listener = TcpListener::bind(port.address()).unwrap();
        assert!(!is_free(port.number()));
    }
}
