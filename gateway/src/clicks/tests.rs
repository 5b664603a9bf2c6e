//! The whole pipeline, on a real folder.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use prost::Message as _;
use tokio::sync::watch;
use uuid::Uuid;
use waypost_domain::{Slug, Timestamp};
use waypost_proto::click::Batch;

use super::*;

mod disks;
mod faults;
#[cfg(feature = "cluster")]
mod on_kafka;

const PATIENCE: Duration = Duration::from_secs(20);

/// A log in memory that can be shut: then it takes batches and does not answer.
#[derive(Clone)]
struct Memory {
    open: watch::Sender<bool>,
    /// Takes no batch with this slug, ever.
    refused: Option<&'static str>,
    seen: Arc<Mutex<Vec<Batch>>>,
    acknowledged: Arc<Mutex<Vec<Batch>>>,
}

impl Memory {
    fn new(open: bool) -> Self {
        Self {
            open: watch::Sender::new(open),
            refused: None,
            seen: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    /// Acknowledged clicks, each batch counted once, as the consumer does it.
    fn clicks(&self) -> u64 {
        let batches = self.acknowledged.lock().unwrap();
        let distinct: HashMap<_, usize> = batches
            .iter()
            .map(|b| (identity(b), b.clicks.len()))
            .collect();
        distinct.values().sum::<usize>() as u64
    }
}

impl ClickLog for Memory {
    async fn publish(&self, payload: Payload) -> Result<(), PublishError> {
        let batch = Batch::decode(payload.batch).unwrap();
        assert_eq!(batch.partition, payload.partition);
        if let Some(refused) = self.refused
            && batch.clicks.iter().any(|click| click.slug == refused)
        {
            return Err(PublishError::Refused("it does not please".into()));
        }
        self.seen.lock().unwrap().push(batch.clone());
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        self.acknowledged.lock().unwrap().push(batch);
        Ok(())
    }
}

fn identity(batch: &Batch) -> (String, u64, u32, u64) {
    let Batch {
        gateway,
        boot,
        partition,
        sequence,
        ..
    } = batch;
    (gateway.clone(), *boot, *partition, *sequence)
}

fn settings(folder: &Path) -> Settings {
    Settings {
        gateway: "gateway-1".to_owned(),
        threads: 2,
        folder: folder.to_owned(),
        max_bytes: Settings::DEFAULT_MAX_BYTES,
        visitor_key: [1; 32],
        country_header: None,
        countries: None,
    }
}

fn start(settings: &Settings, log: impl ClickLog) -> Clicks {
    Clicks::start(settings, log, &Registry::new()).unwrap()
}

/// Drops a pipeline without a flush, and waits until its sender has let go of the
/// folder.
async fn crash(clicks: Clicks, folder: &Path) {
    drop(clicks);
    let lock = std::fs::File::open(folder.join("lock")).unwrap();
    until("let go", || lock.try_lock().is_ok()).await;
}

fn record(clicks: &Clicks, count: u64) {
    let mut headers = HeaderMap::new();
    let long = http::HeaderValue::from_str(&"u".repeat(256)).unwrap();
    headers.insert(http::header::USER_AGENT, long);
    for n in 0..count {
        let slug = Slug::parse(&format!("ab{:04}", n % 50)).unwrap();
        clicks.record(&Hit {
            link: ClickedLink {
                domain: 0,
                slug: slug.borrowed(),
                id: Uuid::from_u128(u128::from(n % 50)),
                tenant: "acme",
            },
            status: 302,
            headers: &headers,
            client: IpAddr::from([192, 0, 2, 1]),
            at: Timestamp::from_millis(1_000).unwrap(),
            trace: None,
        });
    }
}

async fn flush(clicks: &Clicks) -> Flushed {
    clicks.flush(Instant::now() + PATIENCE).await
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{what} in time"));
}

async fn until_spooled(clicks: &Clicks, count: u64) {
    let spooled = &clicks.0.shared.metrics.spooled;
    until("spooled", || spooled.get() == count).await;
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "clicks"))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn each_click_arrives_once_and_the_spool_is_empty_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new(true);
    let clicks = start(&settings(folder.path()), log.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| record(&clicks, 1_000));
        }
    });
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 4_000);
    let identities: Vec<_> = log.seen.lock().unwrap().iter().map(identity).collect();
    let distinct: std::collections::HashSet<_> = identities.iter().collect();
    assert_eq!(distinct.len(), identities.len(), "nothing was sent twice");
    assert_eq!(segments(folder.path()), Vec::<PathBuf>::new());

    // The pipeline goes on after a flush.
    record(&clicks, 10);
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 4_010);
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_are_committed_within_moments_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new(true);
    let clicks = start(&settings(folder.path()), log.clone());
    for round in 1..=3 {
        record(&clicks, 7);
        until("arrived", || log.clicks() == round * 7).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing_that_was_committed_and_identities_stay() {
    let folder = tempfile::tempdir().unwrap();
    let shut = Memory::new(false);
    let clicks = start(&settings(folder.path()), shut.clone());
    record(&clicks, 500);
    until_spooled(&clicks, 500).await;
    let sent = || {
        shut.seen
            .lock()
            .unwrap()
            .iter()
            .map(|b| b.clicks.len())
            .sum::<usize>()
    };
    until("sent", || sent() == 500).await;
    crash(clicks, folder.path()).await;

    let open = Memory::new(true);
    let clicks = start(&settings(folder.path()), open.clone());
    record(&clicks, 100);
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(open.clicks(), 600);
    let before = shut.seen.lock().unwrap().clone();
    let after = open.acknowledged.lock().unwrap().clone();
    assert!(before.iter().all(|batch| after.contains(batch)));
    assert_eq!(segments(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_take_in_time_stays_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new(false);
    let clicks = start(&settings(folder.path()), log.clone());
    record(&clicks, 30);
    let left = clicks
        .flush(Instant::now() + Duration::from_millis(300))
        .await;
    let expected =
        |left| matches!(left, Flushed::Remainder { bytes, clicks: 30, lost: 0 } if bytes > 0);
    assert!(expected(left), "{left:?}");
    crash(clicks, folder.path()).await;
    let clicks = start(&settings(folder.path()), log.clone());
    log.open.send_replace(true);
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_damaged_records_and_the_file_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let clicks = start(&settings(folder.path()), Memory::new(false));
    record(&clicks, 500);
    until_spooled(&clicks, 500).await;
    crash(clicks, folder.path()).await;
    let file = segments(folder.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&file, bytes).unwrap();

    let log = Memory::new(true);
    let clicks = start(&settings(folder.path()), log.clone());
    assert_eq!(flush(&clicks).await, Flushed::All);
    let lost = clicks.0.shared.metrics.lost_damaged.get();
    assert_eq!(log.clicks() + lost, 500);
    assert!(
        (1..=500 / 4).contains(&lost),
        "{lost} lost in two of 12 records"
    );
    assert_eq!(segments(folder.path()), Vec::<PathBuf>::new());
    assert!(
        folder
            .path()
            .join("quarantine")
            .join(file.file_name().unwrap())
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_drops_the_oldest_and_counts_them_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new(false);
    let mut settings = settings(folder.path());
    settings.max_bytes = 2_000_000;
    let clicks = start(&settings, log.clone());
    // What the sender has read is not lost: it is in memory. So that some is, it is
    // given more than it may have in flight.
    let rounds = 40;
    for round in 1..=rounds {
        record(&clicks, 5_000);
        let metrics = &clicks.0.shared.metrics;
        until("committed", || metrics.spooled.get() == round * 5_000).await;
    }
    let metrics = clicks.0.shared.metrics.clone();
    assert!(metrics.bytes.get() <= 2_000_000);
    assert!(metrics.lost_full.get() > 0);
    until_all_accounted_for(&clicks).await;
    log.open.send_replace(true);
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks() + metrics.lost_full.get(), rounds * 5_000);
}

/// Recorded is acknowledged, lost, or waiting, and nothing else, when nothing moves.
async fn until_all_accounted_for(clicks: &Clicks) {
    let metrics = &clicks.0.shared.metrics;
    let lost = [
        &metrics.lost_buffer,
        &metrics.lost_full,
        &metrics.lost_damaged,
        &metrics.lost_disk,
        &metrics.lost_refused,
    ];
    until("accounted for", || {
        let lost: u64 = lost.iter().map(|counter| counter.get()).sum();
        let waiting = clicks.0.spool.unsent().clicks;
        metrics.recorded.get() == metrics.acked.get() + lost + waiting
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_costs_nothing_while_the_log_answers() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let log = Memory::new(true);
    let clicks = start(&settings(&spool), log.clone());
    std::fs::remove_dir_all(&spool).unwrap();
    record(&clicks, 100);
    until("arrived", || log.clicks() == 100).await;
    assert_eq!(clicks.0.shared.metrics.spooled.get(), 0);

    // And when it recovers, the spool does.
    std::fs::create_dir_all(&spool).unwrap();
    record(&clicks, 100);
    until("arrived", || log.clicks() == 200).await;
    // The sender may be faster than the count.
    until("counted", || clicks.0.shared.metrics.spooled.get() == 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let _first = start(&settings, Memory::new(true));
    let second = Clicks::start(&settings, Memory::new(true), &Registry::new());
    assert!(matches!(second, Err(StartError::InUse { .. })));
}
