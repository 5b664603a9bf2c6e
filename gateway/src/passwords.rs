//! Hashing passwords, off the threads that serve, and only so many at once: one takes
//! 19 MiB and some 20 ms of a core, which is what a guess is to cost.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Bytes of a password.
pub(crate) const MAX_LEN: usize = 128;

/// What OWASP asks of Argon2id at least (Password Storage Cheat Sheet, 2024): 19 MiB,
/// two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Visitors' guesses: at most two cores are taken by them, and who waits longer than a
/// visitor does is told so.
const CHECKS: Limits = Limits {
    at_once: 2,
    waiting: 32,
    patience: Duration::from_secs(2),
};

/// New passwords: one after another, so that a batch of them leaves the visitors room.
/// The patience is as long as a create may take, and fits some 300 of them.
const HASHES: Limits = Limits {
    at_once: 1,
    waiting: 512,
    patience: Duration::from_secs(8),
};

#[derive(Debug, Clone, Copy)]
struct Limits {
    at_once: usize,
    waiting: usize,
    patience: Duration,
}

/// Too many wait already; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be worked out")]
pub(crate) struct Busy;

/// Makes and checks the hashes of passwords. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Passwords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    checks: Gate,
    hashes: Gate,
    metrics: Metrics,
}

impl Passwords {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            checks: Gate::new(CHECKS),
            hashes: Gate::new(HASHES),
            metrics,
        }))
    }

    /// What is stored of a password: a PHC string, with a salt of its own.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Busy> {
        let turn = self.turn(&self.0.hashes, "hash").await?;
        Ok(work(turn, move || {
            argon2()
                .hash_password(password.as_bytes())
                .expect("the password is shorter than Argon2's limit, and the system has entropy")
                .to_string()
        })
        .await)
    }

    /// Waits until a guess may be checked.
    pub(crate) async fn check(&self) -> Result<Check, Busy> {
        let turn = self.turn(&self.0.checks, "check").await?;
        Ok(Check(turn))
    }

    async fn turn(&self, gate: &Gate, work: &str) -> Result<OwnedSemaphorePermit, Busy> {
        let turn = gate.enter().await;
        let result = if turn.is_ok() { "done" } else { "refused" };
        self.0.metrics.password(work, result);
        turn
    }
}

/// The turn to check one guess.
#[derive(Debug)]
pub(crate) struct Check(OwnedSemaphorePermit);

impl Check {
    /// Whether the password is the one that was hashed. A hash that is none is of no
    /// password.
    pub(crate) async fn matches(self, password: String, hash: String) -> bool {
        work(self.0, move || {
            let parsed = PasswordHash::new(&hash);
            parsed.is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("they are within bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The turn ends with the work, which goes on if whoever asked has hung up.
async fn work<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let work = move || {
        let _turn = turn;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Lets so many through at once, and so many wait.
#[derive(Debug)]
struct Gate {
    turns: Arc<Semaphore>,
    places: Semaphore,
    patience: Duration,
}

impl Gate {
    fn new(limits: Limits) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(limits.at_once)),
            places: Semaphore::new(limits.waiting),
            patience: limits.patience,
        }
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, Busy> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = tokio::time::timeout(self.patience, turn).await;
        turn.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}
