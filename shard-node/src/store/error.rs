//! Why a database did not do what it was asked, by what the caller can do.

use waypost_domain::ShardId;
use waypost_runtime::database;

/// Why a session could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or does not take writes; trying again later
    /// may help.
    #[error("failed to reach the database")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way; trying again at once helps.
    #[error("failed to get a lock of the database in time")]
    Contended(#[source] sqlx::Error),
    /// A prefix is about to move to another shard; trying again in a moment helps.
    #[error("failed to write to a prefix that is about to move")]
    Frozen,
    /// What is to be stored cannot be.
    #[error("failed to store what was given")]
    Data(#[source] sqlx::Error),
    #[error("failed to run a statement")]
    Statement(#[source] sqlx::Error),
    /// A row holds what this release cannot have written.
    #[error("failed to read a stored row: its {0} is invalid")]
    Damaged(&'static str),
    #[error(transparent)]
    Schema(#[from] database::Error),
    #[error(
        "failed to claim the database: it belongs to shard {found}, and this is shard {expected}"
    )]
    OtherShard { found: String, expected: ShardId },
}

impl Error {
    /// Whether the session must not be used again.
    #[must_use]
    pub fn breaks_session(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether trying again cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unavailable(error)
            | Self::Contended(error)
            | Self::Data(error)
            | Self::Statement(error) => !database::may_pass(error),
            Self::Schema(error) => error.is_permanent(),
            Self::Frozen => false,
            Self::Damaged(_) | Self::OtherShard { .. } => true,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Sqlx;
        let code = match &error {
            Sqlx::Database(database) => database.code().unwrap_or_default().into_owned(),
            Sqlx::Io(_)
            | Sqlx::Tls(_)
            | Sqlx::Protocol(_)
            | Sqlx::PoolTimedOut
            | Sqlx::PoolClosed
            | Sqlx::WorkerCrashed
            | Sqlx::BeginFailed => return Self::Unavailable(error),
            Sqlx::Encode(_) => return Self::Data(error),
            _ => return Self::Statement(error),
        };
        // An SQLSTATE has five characters; SQLite's codes are shorter numbers, of
        // which the low byte is the class.
        if code.len() == 5 {
            match code.as_bytes() {
                // Connection lost, shutting down, out of resources, a standby.
                [b'0', b'8', ..] | [b'5', b'3', ..] | b"25006" => Self::Unavailable(error),
                [b'5', b'7', b'P', ..] => Self::Unavailable(error),
                // Rolled back for another's sake, or a lock or statement timeout.
                [b'4', b'0', ..] | b"55P03" | b"57014" => Self::Contended(error),
                // Data exception, integrity violation, a limit of the program.
                [b'2', b'2', ..] | [b'2', b'3', ..] | [b'5', b'4', ..] => Self::Data(error),
                _ => Self::Statement(error),
            }
        } else {
            match code.parse::<u32>().unwrap_or_default() & 0xff {
                5 | 6 => Self::Contended(error),
                // Read-only, I/O error, disk full, cannot open.
                8 | 10 | 13 | 14 => Self::Unavailable(error),
                // Too big, constraint, datatype mismatch.
                18..=20 => Self::Data(error),
                _ => Self::Statement(error),
            }
        }
    }
}
