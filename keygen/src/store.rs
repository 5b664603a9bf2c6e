//! Where the counters are: one row per prefix, in Postgres or SQLite.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::ops::Range;

use waypost_domain::Prefix;

#[cfg(feature = "postgres")]
pub use postgres::PostgresCounters;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteCounters;

/// What is wanted of one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub prefix: Prefix,
    /// The counters of the epoch that the caller is in: nothing outside is given.
    pub within: Range<u64>,
    pub count: u64,
}

/// Counters that only ever move forward.
pub trait CounterStore: Send + Sync + 'static {
    /// Takes a range for each want, in the same order. All of them are committed
    /// durably when this returns: nobody else will be given any of it. A range is
    /// shorter than wanted, or empty, where the epoch's counters end.
    ///
    /// The wants name each prefix once.
    fn take(&self, wants: &[Want]) -> impl Future<Output = Result<Vec<Range<u64>>, Error>> + Send;

    /// Moves each counter that is not yet so far to where it is to stand, all of them or
    /// none. Answers where they stand afterwards, in the same order.
    ///
    /// The counters name each prefix once.
    fn raise(
        &self,
        counters: &[(Prefix, u64)],
    ) -> impl Future<Output = Result<Vec<u64>, Error>> + Send;
}

/// Why no range was given. Some may have been burned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("move the key counters")]
    Database(#[from] sqlx::Error),
    /// Somebody removed or damaged a row; going on could hand slugs out again.
    #[error("read the counter of prefix {0}")]
    Row(Prefix),
    #[error("read the counter of \"{0}\", which is no prefix")]
    Prefix(String),
}

impl Want {
    /// The range to hand out when the counter stands at `next`; its end is where
    /// the counter stands afterwards, also if it is empty.
    fn range_from(&self, next: u64) -> Range<u64> {
        let start = next.max(self.within.start);
        let end = start.saturating_add(self.count).min(self.within.end);
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(within: Range<u64>, count: u64) -> Want {
        let prefix = Prefix::parse("aa").unwrap();
        Want {
            prefix,
            within,
            count,
        }
    }

    #[test]
    fn ranges_stay_within_the_epoch_and_never_run_backwards() {
        assert_eq!(want(100..200, 5).range_from(0), 100..105);
        assert_eq!(want(100..200, 5).range_from(150), 150..155);
        assert_eq!(want(100..200, 5).range_from(198), 198..200);
        assert_eq!(want(100..200, 5).range_from(200), 200..200);
        assert_eq!(want(100..200, 5).range_from(305), 305..305);
    }
}
