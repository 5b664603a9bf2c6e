//! The options of what links may lead to and be called.

use std::path::PathBuf;

use waypost_domain::LongUrl;
use waypost_domain::destination::{Host, Policy};

/// What links may lead to and be called.
#[derive(Debug, Clone, clap::Args)]
pub struct ProtectionOptions {
    /// Further host names of this service, separated by commas: no link may lead to them,
    /// nor to the host of --base-url
    #[arg(long, env = "WAYPOST_OWN_DOMAINS", value_delimiter = ',', value_name = "HOST,..",
          value_parser = host)]
    pub own_domains: Vec<Host>,

    /// Whether links may lead to addresses and names that are not on the public internet:
    /// loopback, private, link-local, metadata services, localhost, names without a dot,
    /// in .local or .internal
    #[arg(long, env = "WAYPOST_ALLOW_PRIVATE_DESTINATIONS", default_value = "false",
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub allow_private_destinations: bool,

    /// Hosts that links may lead to though they are not public, separated by commas
    #[arg(long, env = "WAYPOST_PRIVATE_HOSTS", value_delimiter = ',', value_name = "HOST,..",
          value_parser = host)]
    pub private_hosts: Vec<Host>,

    /// What becomes of a destination whose host mixes alphabets in one of its parts, as
    /// hosts do that imitate others: refuse it, preview it to visitors, or allow it
    #[arg(long, env = "WAYPOST_MIXED_SCRIPT_HOSTS", default_value = "refuse")]
    pub mixed_script_hosts: MixedScriptHosts,

    /// Files of hosts and URLs that no link may lead to, separated by commas: a host (with
    /// its subdomains) or host/path a line, # begins a comment. Read again when they
    /// change; links that lead there answer 451
    #[arg(
        id = "blocklist",
        long = "blocklist",
        env = "WAYPOST_BLOCKLIST",
        value_delimiter = ',',
        value_name = "FILE,.."
    )]
    pub blocklists: Vec<PathBuf>,

    /// File of words that no alias may be, in whatever case, beside those that no alias
    /// may ever be: one a line, # begins a comment. Read again when it changes
    #[arg(long, env = "WAYPOST_RESERVED_WORDS_FILE", value_name = "FILE")]
    pub reserved_words_file: Option<PathBuf>,
}

/// What becomes of a host that mixes scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MixedScriptHosts {
    /// No link may be made to lead there
    Refuse,
    /// Links may, and their visitors first see where they lead, also those that are there
    /// already
    Preview,
    /// Links may, as anywhere else
    Allow,
}

fn host(text: &str) -> Result<Host, String> {
    Host::parse(text).ok_or_else(|| "expected a host name or an address, without port".to_owned())
}

impl ProtectionOptions {
    /// What may be a destination of a service that is found at `base`.
    pub(super) fn policy(&self, base: Option<&LongUrl>) -> Policy {
        let policy = base.map_or_else(Policy::default, |base| Policy::default().own_base(base));
        let policy = policy
            .private(self.allow_private_destinations)
            .mixed_scripts(self.mixed_script_hosts != MixedScriptHosts::Refuse);
        let policy = self.own_domains.iter().fold(policy, Policy::own_host);
        self.private_hosts.iter().fold(policy, Policy::private_host)
    }
}
