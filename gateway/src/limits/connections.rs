//! How many connections an address has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::ClientAddress;

/// Bounded by the limit on all connections: who has none is not in there.
type Open = Mutex<HashMap<IpAddr, u32>>;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AddressLimit {
    /// `None`: no limit.
    most: Option<u32>,
    open: Arc<Open>,
}

impl AddressLimit {
    pub(crate) fn new(most: Option<u32>) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    /// A place for one more connection; `None` if the address has as many as it may.
    pub(crate) fn place(&self, peer: IpAddr) -> Option<AddressPlace> {
        let Some(most) = self.most else {
            return Some(AddressPlace(None));
        };
        let network = ClientAddress::of(peer).network();
        let mut open = lock(&self.open);
        let count = open.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPlace(Some((Arc::clone(&self.open), network))))
    }
}

/// Held for as long as the connection is there.
#[derive(Debug)]
pub(crate) struct AddressPlace(Option<(Arc<Open>, IpAddr)>);

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some((open, network)) = &self.0 else {
            return;
        };
        if let Entry::Occupied(mut count) = lock(open).entry(*network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn lock(open: &Open) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_nobody_without_a_connection_is_remembered() {
        let limit = AddressLimit::new(Some(2));
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = limit.place(here).unwrap();
        let second = limit.place(here).unwrap();
        assert!(limit.place(here).is_none());
        assert!(limit.place(there).is_some());
        drop(first);
        let third = limit.place(here).unwrap();
        drop((second, third));
        assert!(lock(&limit.open).is_empty());
    }
}
