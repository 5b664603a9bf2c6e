//! What the service refuses, and what it gives.

use std::ops::Range;

use prometheus::Registry;
use tonic::{Code, Request};
use waypost_domain::mint::Mint;
use waypost_keygen::Keygen;
use waypost_keygen::store::{CounterStore, Error, Want};
use waypost_proto::keygen::keygen_service_server::KeygenService as _;
use waypost_proto::keygen::{LeaseSlugsRequest, PrefixLease};

pub(crate) fn lease(prefix: &str, epoch: u32, count: u32) -> PrefixLease {
    PrefixLease {
        prefix: prefix.to_owned(),
        epoch,
        count,
    }
}

#[cfg(feature = "postgres")]
pub(crate) async fn fresh_database() -> String {
    tokio::task::spawn_blocking(|| {
        let server = waypost_testbed::Postgres::shared().unwrap();
        server.fresh_database().unwrap()
    })
    .await
    .unwrap()
}

/// Must not be asked: what is refused is refused before a counter moves.
#[derive(Debug)]
struct Untouched;

impl CounterStore for Untouched {
    async fn take(&self, wants: &[Want]) -> Result<Vec<Range<u64>>, Error> {
        panic!("{wants:?} moved a counter");
    }
}

#[tokio::test]
async fn requests_outside_the_limits_are_refused() {
    let mint = Mint::new(&[1; 32]);
    let keygen = Keygen::new(Untouched, mint, &Registry::new()).unwrap();
    let many = |count: usize, each| -> Vec<PrefixLease> {
        waypost_domain::Prefix::all()
            .take(count)
            .map(|prefix| lease(&prefix.to_string(), 1, each))
            .collect()
    };
    let outside = [
        vec![],
        many(257, 1),
        many(17, 1_000),
        vec![lease("a", 1, 1)],
        vec![lease("a-", 1, 1)],
        vec![lease("aa", 1, 0)],
        vec![lease("aa", 1, 1_025)],
        vec![lease("aa", 568, 1)],
        vec![lease("aa", u32::MAX, 1)],
        vec![lease("aa", 1, 1), lease("aa", 1, 1)],
    ];
    for prefixes in outside {
        let request = LeaseSlugsRequest { prefixes };
        let refused = keygen.lease_slugs(Request::new(request.clone())).await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::InvalidArgument,
            "{request:?}"
        );
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_lease_is_slugs_under_the_prefixes_asked_for() {
    use std::collections::HashSet;
    use waypost_domain::Slug;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keygen.db");
    let mint = Mint::new(&[1; 32]);
    let keygen = waypost_keygen::open_sqlite(&file, mint, &Registry::new()).await;
    let request = LeaseSlugsRequest {
        prefixes: vec![lease("zz", 1, 7), lease("aa", 1, 1_024)],
    };
    let leased = keygen.unwrap().lease_slugs(Request::new(request)).await;
    let slugs: HashSet<Slug> = leased
        .unwrap()
        .into_inner()
        .slugs
        .iter()
        .map(|slug| Slug::parse(slug).unwrap())
        .collect();
    let under = |prefix| {
        slugs
            .iter()
            .filter(|s| s.as_str().starts_with(prefix))
            .count()
    };
    assert_eq!(
        (under("zz"), under("aa"), slugs.len()),
        (7, 1_024, 7 + 1_024)
    );
}
