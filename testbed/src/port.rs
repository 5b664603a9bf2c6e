//! Free ports of loopback that parallel tests do not take from each other.
//!
//! A port is held by a locked file of its number, in a folder that all test
//! processes of a user share. The kernel lets go of the lock when its owner dies,
//! so nothing stale remains, and the port stays ours while its server is down.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::TcpListener;
use std::ops::Range;

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
    _lock: File,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Errors
    /// If the folder of locks cannot be used, or every port is taken.
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
        let user = nix::unistd::geteuid();
        let folder = std::env::temp_dir().join(format!("waypost-ports-{user}"));
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        // From a random place, so that parallel searches seldom meet.
        let start = getrandom::u32().unwrap_or(std::process::id()) as usize % RANGE.len();
        for number in RANGE.cycle_from(start) {
            let path = folder.join(number.to_string());
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .doing(|| format!("open {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) if is_usable(number) => {
                    return Ok(Self {
                        number,
                        _lock: lock,
                    });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(source).doing(|| format!("lock {}", path.display()));
                }
            }
        }
        Err(Error::Missing {
            what: "a free port".to_owned(),
            remedy: format!("all of {RANGE:?} are taken"),
        })
    }
}

trait CycleFrom {
    fn cycle_from(self, start: usize) -> impl Iterator<Item = u16>;
}

impl CycleFrom for Range<u16> {
    fn cycle_from(self, start: usize) -> impl Iterator<Item = u16> {
        let length = self.len();
        self.cycle().skip(start).take(length)
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
