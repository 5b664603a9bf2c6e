//! What the operator protects visitors from: destinations that no link may have, and
//! words that no alias may be.
//!
//! A create or an edit is checked as a whole. A link that is there already is judged
//! when it enters memory, by what can change afterwards: the blocklist and the names of
//! this service. The verdict stands in the [`Target`], so that a redirect reads it along
//! with the rest; when the list changes, [`follow`] judges what is in memory anew.

mod options;
mod reserved;

use std::sync::Arc;
use std::time::Instant;

use prometheus::{IntCounterVec, IntGauge};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waypost_domain::blocklist::{self, Blocklist};
use waypost_domain::destination::{Policy, Refusal, mixes_scripts};
use waypost_domain::{LongUrl, Slug, Verdict, long_url};
use waypost_runtime::config::Invalid;
use waypost_runtime::metrics::{Label, Registry};
use waypost_runtime::watched::{Content, Source, Watched};
use waypost_runtime::{Error, Process};

use crate::l1::L1;
use crate::target::Target;

use options::MixedScriptHosts;
pub use options::ProtectionOptions;
use reserved::Reserved;

/// Of one file: 2 million names of 30 bytes. It is in memory while it is read.
const MAX_BLOCKLIST_BYTES: u64 = 64 << 20;

/// Far more words than anybody wants to keep.
const MAX_RESERVED_BYTES: u64 = 1 << 20;

/// Why a link may not be made to lead somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Rule(Refusal),
    Blocked,
}

/// What stands between the visitors of a link that is there and its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Bar {
    Blocklist = 1,
    /// A loop: its destination has become a name of this service.
    OwnDomain = 2,
    /// Its host may imitate another. Visitors see where it leads, and go on themselves.
    MixedScripts = 3,
}

impl Bar {
    /// As the API shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blocklist => "blocklist",
            Self::OwnDomain => "ownDomain",
            Self::MixedScripts => "mixedScripts",
        }
    }

    /// Whether nobody gets past it.
    pub(crate) fn is_closed(self) -> bool {
        self != Self::MixedScripts
    }
}

/// What a visitor gets to see where a bar may stand before the destination.
pub(crate) fn unless_barred(verdict: Verdict, bar: Option<Bar>) -> Verdict {
    match verdict {
        Verdict::Redirect | Verdict::Password if bar.is_some_and(Bar::is_closed) => {
            Verdict::Blocked
        }
        verdict => verdict,
    }
}

/// The list that a target was judged by.
pub(crate) struct JudgedBy(Arc<Option<Blocklist>>);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Protection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    previews_mixed_scripts: bool,
    blocklist: Watched<Option<Blocklist>>,
    reserved: Watched<Reserved>,
    refused: IntCounterVec,
}

impl Protection {
    /// Reads the files that the options name, and goes on watching them.
    ///
    /// # Errors
    /// If one of them does not make sense now, or a metric's name is taken.
    pub fn open(
        options: &ProtectionOptions,
        base_url: &str,
        process: &Process,
    ) -> Result<Self, Error> {
        let base = match LongUrl::parse(base_url) {
            Ok(base) => Some(base),
            // The system chooses one, and nobody knows yet where this is reached.
            Err(long_url::Error::Port) => None,
            Err(error) => {
                return Err(Error::Config(Invalid {
                    option: "--base-url",
                    problem: error.to_string(),
                }));
            }
        };
        let policy = options.policy(base.as_ref());
        let (entries, refused) =
            metrics(&process.registry).map_err(|error| Error::failed("register metrics", error))?;
        let blocklist = if options.blocklists.is_empty() {
            Watched::fixed(None)
        } else {
            let source = Source {
                option: "--blocklist",
                name: "blocklist",
                files: options.blocklists.clone(),
                max_bytes: MAX_BLOCKLIST_BYTES,
            };
            // Nobody can find out which host is taken for a listed one.
            let (one, other) = Uuid::new_v4().as_u64_pair();
            // Bits that are fixed in one half are random in the other.
            let seed = one ^ other;
            let policy = policy.clone();
            process.watcher.watch(source, move |contents| {
                let list = read_blocklist(contents, seed, &policy)?;
                entries.set(i64::try_from(list.len()).unwrap_or(i64::MAX));
                Ok(Some(list))
            })?
        };
        let reserved = match &options.reserved_words_file {
            None => Watched::fixed(Reserved::default()),
            Some(file) => {
                let source = Source {
                    option: "--reserved-words-file",
                    name: "reserved-words",
                    files: vec![file.clone()],
                    max_bytes: MAX_RESERVED_BYTES,
                };
                process.watcher.watch(source, Reserved::read)?
            }
        };
        Ok(Self(Arc::new(Inner {
            policy,
            previews_mixed_scripts: options.mixed_script_hosts == MixedScriptHosts::Preview,
            blocklist,
            reserved,
            refused,
        })))
    }

    /// Says whether a link may be made to lead there.
    pub(crate) fn check(&self, url: &LongUrl) -> Result<(), Refused> {
        let refused = match self.0.policy.check(url) {
            Err(refusal) => Refused::Rule(refusal),
            Ok(()) if self.is_listed(url.as_str()) => Refused::Blocked,
            Ok(()) => return Ok(()),
        };
        let reason = match refused {
            Refused::Rule(Refusal::OwnDomain) => "own_domain",
            Refused::Rule(Refusal::Address(_) | Refusal::LocalName) => "not_public",
            Refused::Rule(Refusal::MixedScripts) => "mixed_scripts",
            Refused::Blocked => "blocklist",
        };
        self.0.refused.with_label_values(&[reason]).inc();
        Err(refused)
    }

    /// Whether no alias may be this word.
    pub(crate) fn is_reserved(&self, alias: &Slug) -> bool {
        Slug::is_reserved(alias.as_str()) || self.0.reserved.load().contains(alias.as_str())
    }

    /// What stands before a link that leads there, if anything.
    pub(crate) fn bar(&self, canonical: &str) -> Option<Bar> {
        self.bar_by(&self.0.blocklist.load(), canonical)
    }

    fn bar_by(&self, list: &Option<Blocklist>, canonical: &str) -> Option<Bar> {
        if self.0.policy.is_own(canonical) {
            return Some(Bar::OwnDomain);
        }
        if list.as_ref().is_some_and(|list| list.blocks(canonical)) {
            return Some(Bar::Blocklist);
        }
        let is_suspect = self.0.previews_mixed_scripts && mixes_scripts(canonical);
        is_suspect.then_some(Bar::MixedScripts)
    }

    fn is_listed(&self, canonical: &str) -> bool {
        let list = self.0.blocklist.load();
        list.as_ref()
            .as_ref()
            .is_some_and(|list| list.blocks(canonical))
    }

    /// Judges a link by the list that holds when this ends.
    pub(crate) fn judge(&self, target: &Target) -> JudgedBy {
        loop {
            let list = self.0.blocklist.get();
            target.set_bar(self.bar_by(&list, target.long_url()));
            let by = JudgedBy(list);
            // Else somebody may have judged it by the new list before this did by the old.
            if self.still_holds(&by) {
                return by;
            }
        }
    }

    /// Whether that list is still in force.
    pub(crate) fn still_holds(&self, by: &JudgedBy) -> bool {
        Arc::ptr_eq(&by.0, &self.0.blocklist.load())
    }

    /// Nothing is listed or reserved, and every destination allowed but a private one.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let (_, refused) = metrics(&Registry::new()).expect("the registry is empty");
        Self(Arc::new(Inner {
            policy: Policy::default(),
            previews_mixed_scripts: false,
            blocklist: Watched::fixed(None),
            reserved: Watched::fixed(Reserved::default()),
            refused,
        }))
    }
}

/// Judges what is in memory anew whenever the list has changed, until the end.
pub(crate) async fn follow(protection: Protection, l1: Arc<L1>, end: CancellationToken) {
    let mut changes = protection.0.blocklist.changes();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let (started, l1) = (Instant::now(), Arc::clone(&l1));
        // A million links take a second; who serves must not wait for it.
        let judged = tokio::task::spawn_blocking(move || l1.judge_all()).await;
        if let Ok(judged) = judged {
            let millis = started.elapsed().as_millis() as u64;
            tracing::info!(
                links = judged.links,
                barred = judged.barred,
                millis,
                "links in memory are judged by the changed blocklist"
            );
        }
    }
}

fn read_blocklist(contents: &[Content], seed: u64, policy: &Policy) -> Result<Blocklist, String> {
    let mut builder = blocklist::Builder::new(seed, policy.own_hosts());
    for content in contents {
        let file = content.file.display();
        let text =
            std::str::from_utf8(&content.bytes).map_err(|_| format!("{file} is not in UTF-8"))?;
        // An empty file among others is as little meant as an empty list.
        let before = builder.len();
        builder
            .read(text)
            .map_err(|error| format!("{file}: {error}"))?;
        if builder.len() == before {
            return Err(format!("{file}: {}", blocklist::Error::Empty));
        }
    }
    builder.build().map_err(|error| error.to_string())
}

/// The entries of the list in force, and destinations refused by reason.
pub(crate) fn metrics(registry: &Registry) -> prometheus::Result<(IntGauge, IntCounterVec)> {
    let entries = registry.gauge(
        "waypost_blocklist_entries",
        "Hosts and URLs that the blocklist in force holds",
    )?;
    let refused = registry.counters(
        "waypost_destinations_refused_total",
        "Creates and edits refused because of where the link would lead",
        &[Label::one_of(
            "reason",
            &["own_domain", "not_public", "mixed_scripts", "blocklist"],
        )],
    )?;
    Ok((entries, refused))
}

#[cfg(test)]
mod tests;
