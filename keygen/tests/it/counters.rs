//! One suite that every store of counters passes. A store is given as a way to
//! open it, since what matters is what the next one to open it finds.

use std::collections::HashSet;
use std::ops::Range;

use waypost_domain::mint::{COUNTERS_PER_EPOCH, counter_range};
use waypost_domain::{Epoch, Prefix};
use waypost_keygen::store::{CounterStore, Want};

/// Databases for one test: `open` opens the same one again.
trait Database {
    type Store: CounterStore;
    async fn create() -> Self;
    async fn open(&self) -> Self::Store;
}

macro_rules! suite {
    ($name:ident, $database:ty) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn ranges_follow_each_other_from_the_epochs_start() {
                super::ranges_follow_each_other_from_the_epochs_start(&<$database>::create().await)
                    .await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_range_ends_with_its_epoch() {
                super::a_range_ends_with_its_epoch(&<$database>::create().await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_epoch_that_is_over_gets_nothing_and_moves_nothing() {
                super::an_epoch_that_is_over_gets_nothing_and_moves_nothing(
                    &<$database>::create().await,
                )
                .await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_was_taken_is_not_given_again_after_a_restart() {
                super::what_was_taken_is_not_given_again_after_a_restart(
                    &<$database>::create().await,
                )
                .await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_raised_counter_gives_nothing_below_and_never_goes_back() {
                super::a_raised_counter_gives_nothing_below_and_never_goes_back(
                    &<$database>::create().await,
                )
                .await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn concurrent_takers_of_the_same_prefixes_never_overlap() {
                super::concurrent_takers_of_the_same_prefixes_never_overlap(
                    &<$database>::create().await,
                )
                .await;
            }
        }
    };
}

#[cfg(feature = "postgres")]
suite!(postgres, on_postgres::Database);
#[cfg(feature = "sqlite")]
suite!(sqlite, on_sqlite::Database);

fn want(prefix: &str, epoch: u32, count: u64) -> Want {
    Want {
        prefix: Prefix::parse(prefix).unwrap(),
        within: counter_range(Epoch::new(epoch).unwrap()).unwrap(),
        count,
    }
}

async fn take(store: &impl CounterStore, want: Want) -> Range<u64> {
    store.take(&[want]).await.unwrap().remove(0)
}

async fn ranges_follow_each_other_from_the_epochs_start(database: &impl Database) {
    let store = database.open().await;
    let wants = [want("aa", 1, 10), want("zz", 2, 5)];
    let one = COUNTERS_PER_EPOCH;
    let ranges = store.take(&wants).await.unwrap();
    assert_eq!(ranges, [one..one + 10, 2 * one..2 * one + 5]);
    let ranges = store.take(&wants).await.unwrap();
    assert_eq!(ranges, [one + 10..one + 20, 2 * one + 5..2 * one + 10]);
    // A new owner goes on in its own epoch.
    assert_eq!(take(&store, want("aa", 3, 1)).await, 3 * one..3 * one + 1);
}

async fn a_range_ends_with_its_epoch(database: &impl Database) {
    let store = database.open().await;
    let end = 2 * COUNTERS_PER_EPOCH;
    let all_but_three = want("aa", 1, COUNTERS_PER_EPOCH - 3);
    assert_eq!(take(&store, all_but_three).await.end, end - 3);
    assert_eq!(take(&store, want("aa", 1, 10)).await, end - 3..end);
    assert!(take(&store, want("aa", 1, 10)).await.is_empty());
    assert_eq!(take(&store, want("aa", 2, 1)).await, end..end + 1);
}

async fn an_epoch_that_is_over_gets_nothing_and_moves_nothing(database: &impl Database) {
    let store = database.open().await;
    let newer = take(&store, want("aa", 5, 10)).await;
    assert!(take(&store, want("aa", 4, 10)).await.is_empty());
    assert!(take(&store, want("aa", 0, 10)).await.is_empty());
    assert_eq!(take(&store, want("aa", 5, 1)).await.start, newer.end);
}

async fn what_was_taken_is_not_given_again_after_a_restart(database: &impl Database) {
    let before = take(&database.open().await, want("aa", 1, 100)).await;
    let after = take(&database.open().await, want("aa", 1, 100)).await;
    assert_eq!(before.end, after.start);
}

async fn a_raised_counter_gives_nothing_below_and_never_goes_back(database: &impl Database) {
    let store = database.open().await;
    let one = COUNTERS_PER_EPOCH;
    let raised = |prefix, next| (Prefix::parse(prefix).unwrap(), next);
    take(&store, want("aa", 1, 10)).await;
    // One that was never moved, one that is behind and one that is not; not in order.
    take(&store, want("ab", 1, 700)).await;
    let to = [
        raised("zz", one + 3),
        raised("aa", one + 500),
        raised("ab", one + 500),
    ];
    let stand = [one + 3, one + 500, one + 700];
    assert_eq!(store.raise(&to).await.unwrap(), stand);
    assert_eq!(store.raise(&to).await.unwrap(), stand, "again");
    let store = database.open().await;
    assert_eq!(take(&store, want("aa", 1, 1)).await.start, one + 500);
    assert_eq!(take(&store, want("ab", 1, 1)).await.start, one + 700);
    assert_eq!(take(&store, want("zz", 1, 1)).await.start, one + 3);
    assert_eq!(store.raise(&to).await.unwrap(), stand.map(|next| next + 1));
}

async fn concurrent_takers_of_the_same_prefixes_never_overlap(database: &impl Database) {
    const ROUNDS: usize = 25;
    // Half of them name the prefixes the other way round: the store must not
    // deadlock, whatever order it is given.
    let forwards: Vec<Want> = ["00", "Aa", "aA", "zz"].map(|p| want(p, 1, 3)).into();
    let backwards: Vec<Want> = forwards.iter().rev().cloned().collect();
    let mut takers = tokio::task::JoinSet::new();
    for taker in 0..4 {
        let store = database.open().await;
        let wants = [&forwards, &backwards][taker % 2].clone();
        takers.spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..ROUNDS {
                let ranges = store.take(&wants).await.unwrap();
                taken.extend(wants.iter().map(|want| want.prefix).zip(ranges));
            }
            taken
        });
    }
    let taken: Vec<(Prefix, Range<u64>)> = takers.join_all().await.into_iter().flatten().collect();
    let counters: HashSet<(Prefix, u64)> = taken
        .into_iter()
        .flat_map(|(prefix, range)| range.map(move |counter| (prefix, counter)))
        .collect();
    assert_eq!(counters.len(), 4 * ROUNDS * 4 * 3);
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use sqlx::PgPool;
    use waypost_keygen::store::PostgresCounters;

    pub(super) struct Database {
        url: String,
    }

    impl super::Database for Database {
        type Store = PostgresCounters;

        async fn create() -> Self {
            let url = crate::service::fresh_database().await;
            Self { url }
        }

        async fn open(&self) -> PostgresCounters {
            let store = PostgresCounters::new(PgPool::connect(&self.url).await.unwrap());
            store.migrate().await.unwrap();
            store
        }
    }
}

#[cfg(feature = "sqlite")]
mod on_sqlite {
    use waypost_keygen::store::SqliteCounters;

    pub(super) struct Database {
        folder: tempfile::TempDir,
    }

    impl super::Database for Database {
        type Store = SqliteCounters;

        async fn create() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder }
        }

        async fn open(&self) -> SqliteCounters {
            let file = self.folder.path().join("keygen.db");
            SqliteCounters::open(&file).await.unwrap()
        }
    }
}
