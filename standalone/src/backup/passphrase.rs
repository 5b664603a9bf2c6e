//! Where the passphrase of a backup comes from.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use waypost_runtime::Error;
use waypost_runtime::config::Invalid;

/// The passphrase, where no file has it. No flag does: other users see those.
const VARIABLE: &str = "WAYPOST_BACKUP_PASSPHRASE";

/// All secrets are behind it, for whoever gets hold of the file.
const SHORTEST: usize = 12;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Passphrase {
    /// File with the backup's passphrase, without which the environment's
    /// WAYPOST_BACKUP_PASSPHRASE is taken, or a terminal is asked
    #[arg(long, env = "WAYPOST_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    /// One to encrypt with: of a length that is worth it, and typed twice.
    pub(super) fn chosen(&self) -> Result<String, Error> {
        let (from, passphrase) = match self.given()? {
            Some(given) => given,
            None => {
                let passphrase = ask("Passphrase of the backup: ")?;
                if ask("Once more: ")? != passphrase {
                    let differ = io::Error::other("the two are not the same");
                    return Err(Error::failed(
                        format!("take the passphrase: {differ}"),
                        differ,
                    ));
                }
                (VARIABLE, passphrase)
            }
        };
        if passphrase.chars().count() < SHORTEST {
            return Err(Error::Config(Invalid {
                option: from,
                problem: format!(
                    "a passphrase has at least {SHORTEST} characters (`openssl rand -base64 24` \
                     makes one; keep it where the backup is not)"
                ),
            }));
        }
        Ok(passphrase)
    }

    /// One to decrypt with.
    pub(super) fn known(&self) -> Result<String, Error> {
        match self.given()? {
            Some((_, passphrase)) => Ok(passphrase),
            None => ask("Passphrase of the backup: "),
        }
    }

    /// With the option that it is of.
    fn given(&self) -> Result<Option<(&'static str, String)>, Invalid> {
        let (from, text) = match &self.passphrase_file {
            Some(file) => {
                let read = std::fs::read_to_string(file).map_err(|error| Invalid {
                    option: "--passphrase-file",
                    problem: format!("cannot read {}: {error}", file.display()),
                })?;
                ("--passphrase-file", Some(read))
            }
            None => (VARIABLE, std::env::var(VARIABLE).ok()),
        };
        // An editor ends a file with a line's end, which nobody types.
        let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(text.map(|text| (from, text)))
    }
}

fn ask(what: &str) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Config(Invalid {
            option: "--passphrase-file",
            problem: format!("there is none, no {VARIABLE}, and no terminal to ask for it"),
        }));
    }
    rpassword::prompt_password(what).map_err(|error| Error::failed("ask for the passphrase", error))
}
