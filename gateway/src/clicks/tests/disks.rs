//! Disks that are full or read-only. It takes root to mount them.

use std::process::Command;

use super::*;

/// A file system in memory over a folder, as long as this lives.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(folder: &'a Path, options: &str) -> Self {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "waypost"])
            .arg(folder));
        Self(folder)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0));
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn may_mount() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let is_root = id.trim_ascii() == b"0";
    if !is_root {
        eprintln!("not run: it takes root to mount a disk");
    }
    is_root
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_counted_clicks_and_no_more_than_while_it_is_full() {
    if !may_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let _disk = Disk::mount(folder.path(), "size=1m");
    let log = Memory::new(false);
    let clicks = start(&settings(folder.path()), log.clone());
    let metrics = clicks.0.shared.metrics.clone();
    let mut count = 0;
    // The disk takes some 3,000 clicks, then the memory as many as may be on their
    // way.
    while metrics.lost_disk.get() == 0 {
        assert!(count < 100_000, "neither takes more");
        record(&clicks, 1_000);
        count += 1_000;
        until("recorded", || metrics.recorded.get() == count).await;
    }
    until_all_accounted_for(&clicks).await;
    assert!(metrics.spooled.get() > 0);
    let lost = metrics.lost_disk.get();

    log.open.send_replace(true);
    until("sent", || log.clicks() + lost == count).await;
    until_all_accounted_for(&clicks).await;
    let spooled = metrics.spooled.get();
    record(&clicks, 100);
    let has_room = || metrics.spooled.get() == spooled + 100;
    until("there is room again", has_room).await;
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks() + lost, count + 100);
    assert_eq!(metrics.lost_disk.get(), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_read_only_folder_clicks_are_sent_from_memory() {
    if !may_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new(true);
    let clicks = start(&settings(folder.path()), log.clone());
    let disk = Disk::mount(folder.path(), "ro");
    record(&clicks, 100);
    until("sent", || log.clicks() == 100).await;
    assert_eq!(clicks.0.shared.metrics.spooled.get(), 0);
    drop(disk);
    record(&clicks, 100);
    until_spooled(&clicks, 100).await;
    assert_eq!(flush(&clicks).await, Flushed::All);
    assert_eq!(log.clicks(), 200);
}
