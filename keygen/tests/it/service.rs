//! What the service refuses, and what it gives.

use std::ops::Range;

use tonic::{Code, Request};
use waypost_domain::Prefix;
use waypost_domain::mint::Mint;
use waypost_keygen::Keygen;
use waypost_keygen::store::{CounterStore, Error, Want};
use waypost_proto::keygen::keygen_service_server::KeygenService as _;
use waypost_proto::keygen::{Counter, LeaseSlugsRequest, PrefixLease, RaiseCountersRequest};
use waypost_runtime::metrics::Registry;

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

    async fn raise(&self, counters: &[(Prefix, u64)]) -> Result<Vec<u64>, Error> {
        panic!("{counters:?} were moved");
    }
}

#[tokio::test]
async fn requests_outside_the_limits_are_refused() {
    let mint = Mint::new(&[1; 32]);
    let keygen = Keygen::new(Untouched, mint, &Registry::new()).unwrap();
    let many = |count: usize, each| -> Vec<PrefixLease> {
        Prefix::all()
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

fn counter(prefix: &str, next: u64) -> Counter {
    Counter {
        prefix: prefix.to_owned(),
        next,
    }
}

#[tokio::test]
async fn counters_of_another_key_and_those_outside_the_limits_move_nothing() {
    let mint = || Mint::new(&[1; 32]);
    let keygen = Keygen::new(Untouched, mint(), &Registry::new()).unwrap();
    let raise = async |counters: Vec<Counter>, key: &[u8]| {
        let request = RaiseCountersRequest {
            counters,
            slug_key: key.to_vec(),
        };
        let refused = keygen.raise_counters(Request::new(request)).await;
        refused.unwrap_err().code()
    };
    let own = mint().fingerprint();
    let many = Prefix::all().take(257);
    for outside in [
        vec![],
        many.map(|prefix| counter(&prefix.to_string(), 1)).collect(),
        vec![counter("a-", 1)],
        vec![counter("aa", u64::MAX)],
        vec![counter("aa", 1), counter("aa", 2)],
    ] {
        assert_eq!(raise(outside, &own).await, Code::InvalidArgument);
    }
    let other = Mint::new(&[2; 32]).fingerprint();
    for key in [&other[..], &[]] {
        let refused = raise(vec![counter("aa", 1)], key).await;
        assert_eq!(refused, Code::FailedPrecondition);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn no_slug_below_a_raised_counter_is_leased() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |file: &str| {
        let file = folder.path().join(file);
        let (mint, registry) = (Mint::new(&[1; 32]), Registry::new());
        let keygen = waypost_keygen::open_sqlite(&file, mint, &registry).await;
        keygen.unwrap()
    };
    let (here, there) = (open("here.db").await, open("there.db").await);
    let request = || {
        Request::new(LeaseSlugsRequest {
            prefixes: vec![lease("aa", 1, 100)],
        })
    };
    let taken = here
        .lease_slugs(request())
        .await
        .unwrap()
        .into_inner()
        .slugs;
    let moved = RaiseCountersRequest {
        counters: vec![counter("aa", 100_000_100)],
        slug_key: Mint::new(&[1; 32]).fingerprint().to_vec(),
    };
    let stand = there.raise_counters(Request::new(moved.clone())).await;
    assert_eq!(stand.unwrap().into_inner().counters, moved.counters);
    let fresh = there
        .lease_slugs(request())
        .await
        .unwrap()
        .into_inner()
        .slugs;
    assert_eq!(fresh.len(), 100);
    assert!(fresh.iter().all(|slug| !taken.contains(slug)));
}
