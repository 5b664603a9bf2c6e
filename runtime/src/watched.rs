//! Files that are read again when they change: what they last said that made sense
//! is what holds.
//!
//! A file is looked at twice a second, and read when it has been the same for two
//! looks: so a change is in force within a second or two, and a file that is being
//! written is not taken for a whole one. Looking goes by the path, so that a swapped
//! symbolic link (as Kubernetes updates a mounted ConfigMap) is a change as well.
//! What cannot be read, is too large or is refused by its reader is logged and counted,
//! and what was there before goes on holding. It is tried again now and then, since what
//! it is judged by may change as well.

mod validity;

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};
use tokio::sync::watch;

use crate::config::Invalid;
use crate::metrics::{Label, Registry};
use validity::Validities;
pub use validity::Validity;

/// Between two looks. A change must be seen twice, and what waits for it (a revoked
/// key) may wait for five seconds at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two tries to read files that were refused and have not changed. The largest of
/// them takes a tenth of a second.
const AGAIN: Duration = Duration::from_secs(5);

/// What is watched, and how it is spoken of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The option that names the files, with its dashes.
    pub option: &'static str,
    /// The label of the metrics.
    pub name: &'static str,
    /// Read as one: each reading is of all of them.
    pub files: Vec<PathBuf>,
    /// Of each file; a larger one is refused before it fills the memory.
    pub max_bytes: u64,
}

/// What one of the files holds.
#[derive(Debug)]
pub struct Content {
    pub file: PathBuf,
    pub bytes: Vec<u8>,
}

/// Starts to watch files. One for each process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Watcher {
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Metrics {
    current: IntGaugeVec,
    readings: IntCounterVec,
    last_success: GaugeVec,
    validities: Validities,
}

impl Watcher {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let file = Label::such("file", "what it is for, as in `revoked-keys`");
        let metrics = Metrics {
            current: registry.gauges(
                "waypost_watched_file_current",
                "1 while what holds is what the files say, 0 while it is what they said before",
                &[file],
            )?,
            readings: registry.counters(
                "waypost_watched_file_readings_total",
                "Changes of watched files that were taken over (ok) or refused (failed)",
                &[file, Label::one_of("result", &["ok", "failed"])],
            )?,
            last_success: registry.real_gauges(
                "waypost_watched_file_last_success_timestamp_seconds",
                "When what holds was read, in seconds since 1970",
                &[file],
            )?,
            validities: Validities::register(registry)?,
        };
        Ok(Self { metrics })
    }

    /// Reads the files, and again whenever one of them changes, on a thread of its own
    /// that ends with the last handle. `parse` says in a few words what is wrong with
    /// them; never a secret that they hold, since that is logged.
    ///
    /// # Errors
    /// If they cannot be read or parsed now: nothing held before.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        source: Source,
        parse: impl FnMut(&[Content]) -> Result<T, String> + Send + 'static,
    ) -> Result<Watched<T>, Invalid> {
        let mut eye = Eye {
            taken: stamps(&source.files),
            tried: Instant::now(),
            seen: Vec::new(),
            trouble: None,
            parse,
            source,
            metrics: self.metrics.clone(),
        };
        let first = read(&eye.source)
            .and_then(|contents| (eye.parse)(&contents))
            .map_err(|problem| Invalid {
                option: eye.source.option,
                problem,
            })?;
        eye.metrics.taken(eye.source.name);
        let shared = Arc::new(Shared {
            value: ArcSwap::from_pointee(first),
            changes: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name(format!("watch {}", eye.source.name))
            .spawn(move || eye.keep_looking(&weak))
            .map_err(|error| Invalid {
                option: "--threads",
                problem: format!("cannot start a thread: {error}"),
            })?;
        Ok(Watched { shared })
    }

    /// Shows when the certificate is valid that a source of this name holds.
    pub fn show_validity(&self, name: &str, validity: Validity) {
        self.metrics.validities.set(name, validity);
    }
}

impl Metrics {
    fn taken(&self, name: &str) {
        self.current.with_label_values(&[name]).set(1);
        self.readings.with_label_values(&[name, "ok"]).inc();
        // Shown from the start, so that its first increase is seen as one.
        self.readings.with_label_values(&[name, "failed"]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_success
            .with_label_values(&[name])
            .set(now.unwrap_or_default().as_secs_f64());
    }

    fn failed(&self, name: &str) {
        self.current.with_label_values(&[name]).set(0);
        self.readings.with_label_values(&[name, "failed"]).inc();
    }
}

/// What watched files say, as far as it made sense. Cheap to clone; reading it takes
/// no lock.
#[derive(Debug)]
pub struct Watched<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    value: ArcSwap<T>,
    changes: watch::Sender<u64>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Watched<T> {
    /// One that never changes, for where no file is given.
    #[must_use]
    pub fn fixed(value: T) -> Self {
        Self {
            shared: Arc::new(Shared {
                value: ArcSwap::from_pointee(value),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// What holds now. Not to be kept over an await: what is held long slows readers.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.shared.value.load()
    }

    /// What holds now, to be kept.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.shared.value.load_full()
    }

    /// Tells of each change after it is in force: the number of changes so far.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// What tells one state of a file from another. A file that is written again, moved
/// here or linked to has another of these, whatever its time of modification was set
/// to: nobody can set the time of change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// `None`: there is no such file, or it cannot be looked at.
type Stamps = Vec<Option<Stamp>>;

fn stamps(files: &[PathBuf]) -> Stamps {
    let stamp = |found: Metadata| Stamp {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    files
        .iter()
        .map(|file| std::fs::metadata(file).ok().map(stamp))
        .collect()
}

/// Whoever looks at the files of one source.
struct Eye<P> {
    source: Source,
    parse: P,
    /// Of what was read last, whether it made sense or not.
    taken: Stamps,
    /// When that was.
    tried: Instant,
    /// Of the last look.
    seen: Stamps,
    /// What is wrong since the last change; said once.
    trouble: Option<String>,
    metrics: Metrics,
}

impl<P> Eye<P> {
    fn keep_looking<T>(mut self, shared: &Weak<Shared<T>>)
    where
        P: FnMut(&[Content]) -> Result<T, String>,
    {
        loop {
            std::thread::sleep(LOOK_EVERY);
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if let Some(value) = self.look() {
                shared.value.store(Arc::new(value));
                shared.changes.send_modify(|changes| *changes += 1);
            }
        }
    }

    /// Something new, if the files have changed, rest, and make sense.
    fn look<T>(&mut self) -> Option<T>
    where
        P: FnMut(&[Content]) -> Result<T, String>,
    {
        let now = stamps(&self.source.files);
        let rests = now == self.seen;
        self.seen.clone_from(&now);
        let is_due = self.trouble.is_some() && self.tried.elapsed() >= AGAIN;
        if !rests || (now == self.taken && !is_due) {
            return None;
        }
        let read = read(&self.source);
        if stamps(&self.source.files) != now {
            // Written meanwhile: what was read may be of both.
            return None;
        }
        (self.taken, self.tried) = (now, Instant::now());
        // A parser that gives up must not end the watch.
        let parse = |contents: Vec<Content>| {
            let parsed = catch_unwind(AssertUnwindSafe(|| (self.parse)(&contents)));
            parsed.unwrap_or_else(|_| Err("the parser panicked".to_owned()))
        };
        match read.and_then(parse) {
            Ok(value) => {
                self.trouble = None;
                self.metrics.taken(self.source.name);
                let (option, files) = (self.source.option, &self.source.files);
                tracing::info!(option, ?files, "changed files are in force");
                Some(value)
            }
            Err(problem) => {
                self.refuse(problem);
                None
            }
        }
    }

    fn refuse(&mut self, problem: String) {
        if self.trouble.as_ref() == Some(&problem) {
            return;
        }
        self.metrics.failed(self.source.name);
        let option = self.source.option;
        tracing::error!(
            option,
            error = problem,
            "changed files are refused, what they said before goes on holding"
        );
        self.trouble = Some(problem);
    }
}

fn read(source: &Source) -> Result<Vec<Content>, String> {
    source
        .files
        .iter()
        .map(|file| {
            let bytes = read_one(file, source.max_bytes)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            Ok(Content {
                file: file.clone(),
                bytes,
            })
        })
        .collect()
}

fn read_one(file: &PathBuf, max_bytes: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::other(format!("it has more than {max_bytes} bytes"));
    let opened = File::open(file)?;
    if opened.metadata()?.len() > max_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile, and one more byte tells that it did.
    opened.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    /// A number in a file.
    fn number(contents: &[Content]) -> Result<u64, String> {
        let text = String::from_utf8_lossy(&contents[0].bytes);
        text.trim().parse().map_err(|_| "no number".to_owned())
    }

    fn watch_number(registry: &Registry, file: &Path) -> Result<Watched<u64>, Invalid> {
        let source = Source {
            option: "--number",
            name: "number",
            files: vec![file.to_owned()],
            max_bytes: 16,
        };
        Watcher::register(registry).unwrap().watch(source, number)
    }

    fn metric(registry: &Registry, name: &str, result: Option<&str>) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let is_asked = |metric: &&prometheus::proto::Metric| {
            result.is_none_or(|asked| {
                metric
                    .get_label()
                    .iter()
                    .any(|label| label.value() == asked)
            })
        };
        let metric = family.unwrap().get_metric().iter().find(is_asked).unwrap();
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    #[track_caller]
    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_changed_file_is_in_force_and_told_about() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let watched = watch_number(&Registry::new(), &file).unwrap();
        let mut changes = watched.changes();
        assert_eq!(**watched.load(), 1);
        fs::write(&file, "2").unwrap();
        wait_until("the new number", || **watched.load() == 2);
        wait_until("the change is told", || changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 1);
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        // As Kubernetes does it: file -> ..data/file, ..data -> a folder with a date.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("old", "7"), ("new", "8")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("number"), text).unwrap();
        }
        symlink("old", at("..data")).unwrap();
        symlink("..data/number", at("number")).unwrap();
        let watched = watch_number(&Registry::new(), &at("number")).unwrap();
        symlink("new", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        wait_until("the new number", || **watched.load() == 8);
    }

    #[test]
    fn what_is_broken_or_gone_leaves_the_last_good_in_force_and_shows_in_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let registry = Registry::new();
        let watched = watch_number(&registry, &file).unwrap();
        let failures = || {
            metric(
                &registry,
                "waypost_watched_file_readings_total",
                Some("failed"),
            )
        };
        let is_current = || metric(&registry, "waypost_watched_file_current", None);
        assert_eq!((failures(), is_current()), (0.0, 1.0));

        fs::write(&file, "one").unwrap();
        wait_until("a failure", || failures() == 1.0);
        assert_eq!((is_current(), **watched.load()), (0.0, 1));
        fs::write(&file, "11111111111111111").unwrap();
        wait_until("a failure: too large", || failures() == 2.0);
        fs::remove_file(&file).unwrap();
        wait_until("a failure: gone", || failures() == 3.0);
        assert_eq!((is_current(), **watched.load()), (0.0, 1));

        fs::write(&file, "2").unwrap();
        wait_until("the new number", || **watched.load() == 2);
        assert_eq!((failures(), is_current()), (3.0, 1.0));
    }

    fn eye<P>(source: Source, parse: P) -> Eye<P> {
        Eye {
            taken: stamps(&source.files),
            tried: Instant::now(),
            seen: Vec::new(),
            trouble: None,
            parse,
            source,
            metrics: Watcher::register(&Registry::new()).unwrap().metrics,
        }
    }

    #[test]
    fn what_was_refused_is_tried_again_without_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let source = Source {
            option: "--number",
            name: "number",
            files: vec![file.clone()],
            max_bytes: 16,
        };
        let mut highest = 1;
        let mut eye = eye(source, |contents: &[Content]| {
            highest += 1;
            let found = number(contents)?;
            (found <= highest)
                .then_some(found)
                .ok_or("too high".to_owned())
        });
        fs::write(&file, "3").unwrap();
        assert_eq!((eye.look(), eye.look()), (None, None));
        assert_eq!(eye.trouble.as_deref(), Some("too high"));
        assert_eq!(eye.look(), None, "too early");
        eye.tried -= AGAIN;
        assert_eq!(eye.look(), Some(3));
        eye.tried -= AGAIN;
        assert_eq!(eye.look(), None, "taken once");
    }

    #[test]
    fn a_file_that_is_being_written_is_not_taken_for_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let source = Source {
            option: "--number",
            name: "number",
            files: vec![file.clone()],
            max_bytes: 16,
        };
        let mut eye = eye(source, number);
        for text in ["2", "23", "234"] {
            fs::write(&file, text).unwrap();
            assert_eq!(eye.look(), None, "seen once as {text}");
        }
        assert_eq!(eye.look(), Some(234));
        assert_eq!(eye.look(), None, "taken once");
    }

    #[test]
    fn what_cannot_be_read_at_the_start_names_the_option_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        let missing = watch_number(&Registry::new(), &file).unwrap_err();
        let text = missing.to_string();
        assert!(
            text.starts_with("--number: cannot read ") && text.contains("/number"),
            "{text}"
        );
    }
}
