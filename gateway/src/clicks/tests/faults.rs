//! What files and logs do to a spool.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_for_what_no_file_holds_and_counts_what_the_end_takes_along() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let log = Memory::new(false);
    let clicks = start(&settings(&spool), log.clone());
    std::fs::remove_dir_all(&spool).unwrap();
    record(&clicks, 100);
    let soon = || Instant::now() + Duration::from_millis(500);
    let left = clicks.flush(soon()).await;
    let expected = Flushed::Remainder {
        bytes: 0,
        clicks: 0,
        lost: 100,
    };
    assert_eq!(left, expected);
    assert_eq!(clicks.0.shared.metrics.lost_exit.get(), 100);
    log.open.send_replace(true);
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_wrong_kind_delay_nothing_and_are_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let clicks = start(&settings(folder.path()), Memory::new(false));
    record(&clicks, 500);
    until_spooled(&clicks, 500).await;
    crash(clicks, folder.path()).await;
    let good = segments(folder.path()).remove(0);
    let whole = std::fs::read(&good).unwrap();
    let mut flipped = whole.clone();
    // The length in the first record's header: a mark of 8 bytes, then 12 before it.
    flipped[20] ^= 0xff;
    let files: [(&str, &[u8]); 5] = [
        ("zeroes", &[0; 100_000]),
        ("foreign", b"#!/bin/sh\necho nothing of ours\n"),
        ("mark only", b"waypost1"),
        ("empty", b""),
        ("header flipped", &flipped),
    ];
    for (index, (_, bytes)) in files.iter().enumerate() {
        let path = folder.path().join(format!("{:016x}-{index:08x}.clicks", 1));
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::create_dir(folder.path().join("0000000000000002-00000000.clicks")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "somebody's").unwrap();

    let log = Memory::new(true);
    let clicks = start(&settings(folder.path()), log.clone());
    assert_eq!(flush(&clicks).await, Flushed::All);
    // The flipped copy has the same identities; what it lacks the whole one has.
    assert_eq!(log.clicks(), 500);
    let lost = clicks.0.shared.metrics.lost_damaged.get();
    assert!((3..=2 + 100).contains(&lost), "{lost} lost of three files");
    assert_eq!(segments(folder.path()).len(), 1, "the folder is left alone");
    assert!(folder.path().join("notes.txt").exists());
    let kept = std::fs::read_dir(folder.path().join("quarantine")).unwrap();
    assert_eq!(kept.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_read_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let clicks = start(&settings(folder.path()), Memory::new(false));
    record(&clicks, 50);
    until_spooled(&clicks, 50).await;
    crash(clicks, folder.path()).await;
    let first = folder.path().join(format!("{:016x}-{:08x}.clicks", 1, 0));
    std::fs::copy(&segments(folder.path())[0], &first).unwrap();

    let metrics = Metrics::register(&Registry::new()).unwrap();
    let (spool, _appender) = Spool::open(folder.path(), 1 << 30, metrics).unwrap();
    let aside = folder.path().join("aside");
    std::fs::rename(&first, &aside).unwrap();
    // Root reads whatever it has no right to, but no circle of links.
    std::os::unix::fs::symlink(&first, &first).unwrap();
    let next = async || {
        let chunk = tokio::time::timeout(PATIENCE, spool.next()).await.unwrap();
        let clicks = chunk.records.iter().map(|(_, ticket)| ticket.clicks);
        clicks.sum::<u64>()
    };
    assert_eq!(next().await, 50, "of the second segment");
    std::fs::remove_file(&first).unwrap();
    std::fs::rename(&aside, &first).unwrap();
    assert_eq!(next().await, 50, "of the first, when it can be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_of_full_size_does_not_delay_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..256 {
        let path = folder.path().join(format!("{:016x}-{index:08x}.clicks", 1));
        // A gibibyte that takes no disk; damaged to the last byte, which is the
        // worst to read.
        std::fs::File::create(path)
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
    }
    let before = std::time::Instant::now();
    let clicks = start(&settings(folder.path()), Memory::new(true));
    let took = before.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(
        clicks.0.spool.unsent().bytes > 1 << 29,
        "nearly all of it waits"
    );
    record(&clicks, 100);
    until_spooled(&clicks, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_log_never_takes_is_counted_kept_aside_and_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Memory::new(true);
    log.refused = Some("ab0007");
    let clicks = start(&settings(folder.path()), log.clone());
    record(&clicks, 500);
    assert_eq!(flush(&clicks).await, Flushed::All);
    let refused = clicks.0.shared.metrics.lost_refused.get();
    assert!(refused >= 10, "at least the clicks of that slug");
    assert_eq!(log.clicks() + refused, 500);
    until_all_accounted_for(&clicks).await;
    let kept = std::fs::read_dir(folder.path().join("quarantine")).unwrap();
    let kept: Vec<PathBuf> = kept.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);

    // An operator whose log takes it now puts the file back.
    crash(clicks, folder.path()).await;
    let back = folder.path().join(kept[0].file_name().unwrap());
    std::fs::rename(&kept[0], back).unwrap();
    log.refused = None;
    let clicks = start(&settings(folder.path()), log.clone());
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 500, "each batch counted once");
}
