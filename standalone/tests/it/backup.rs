//! `waypost backup` and `waypost restore`.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::process::{User, Waypost, command, token, wait_until};

const PASSPHRASE: &str = "correct horse battery";

fn run(arguments: &[&str], file: &Path, data: &Path) -> Output {
    run_with(arguments, file, data, PASSPHRASE)
}

fn run_with(arguments: &[&str], file: &Path, data: &Path, passphrase: &str) -> Output {
    command()
        .args(arguments)
        .arg(file)
        .env("WAYPOST_DATA_DIR", data)
        .env("WAYPOST_BACKUP_PASSPHRASE", passphrase)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn back_up(data: &Path, file: &Path) {
    let output = run(&["backup"], file, data);
    assert!(output.status.success(), "{}", said(&output));
}

fn restore(file: &Path, data: &Path) {
    let output = run(&["restore"], file, data);
    assert!(output.status.success(), "{}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Fails with a message that has this in it, and leaves nothing in a data folder.
#[track_caller]
fn is_refused(output: &Output, data: &Path, because: &str) {
    assert!(!output.status.success(), "{}", said(output));
    assert!(said(output).contains(because), "{}", said(output));
    let left = std::fs::read_dir(data).map_or(0, Iterator::count);
    assert_eq!(left, 0, "files in {}", data.display());
}

/// Creates so many links, by thousands, and gives their slugs.
pub(crate) fn create(waypost: &Waypost, token: &str, links: usize) -> Vec<String> {
    let link = json!({ "longUrl": "https://example.com/many" });
    let mut slugs = Vec::new();
    while slugs.len() < links {
        let body = json!({ "links": vec![&link; 1_000.min(links - slugs.len())] });
        let answer = waypost.send("POST", "/api/v1/links/batch", token, &body);
        let answer: Value = answer.json().unwrap();
        let results = answer["results"].as_array().unwrap();
        slugs.extend(
            results
                .iter()
                .map(|link| link["slug"].as_str().unwrap().to_owned()),
        );
    }
    slugs
}

/// Everything is written without a pause while the backup is made; then the first
/// instance goes on for a while, and is lost.
#[test]
fn a_backup_made_under_load_is_of_one_instant_and_its_new_slugs_are_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.age"));
    let unlimited = [("WAYPOST_LIMITS", "false")];
    let first = Waypost::start_with(&data, &unlimited);
    let key = token(&data);
    let counted = first.shorten("https://example.com/counted");
    for _ in 0..5 {
        first.follow(&counted);
    }
    wait_until("the clicks are counted", || first.clicks(&counted) == 5);
    let mut before = create(&first, &key, 2_000);
    let gone = before.pop().unwrap();
    let path = format!("/api/v1/links/{gone}");
    assert_eq!(
        first.send("DELETE", &path, &key, &Value::Null).status(),
        204
    );

    let stop = AtomicBool::new(false);
    let in_order = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut slugs = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                slugs.push(first.shorten(&format!("https://example.com/{}", slugs.len())));
            }
            slugs
        });
        let clicker = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                first.follow(&before[0]);
            }
        });
        back_up(&data, &file);
        stop.store(true, Ordering::Relaxed);
        clicker.join().unwrap();
        writer.join().unwrap()
    });
    let mut issued: HashSet<String> = before.iter().chain(&in_order).cloned().collect();
    issued.extend(create(&first, &key, 8_000));
    first.kill();

    for life in ["second", "third"] {
        let data = folder.path().join(life);
        restore(&file, &data);
        let log = folder.path().join(format!("{life}.log"));
        let restored = Waypost::start_logging(&data, &log, &unlimited);
        for slug in before.iter().step_by(97) {
            assert_eq!(
                restored.follow(slug),
                (302, "https://example.com/many".to_owned())
            );
        }
        assert_eq!(restored.follow(&gone).0, 410);
        assert_eq!(restored.clicks(&counted), 5);
        // Of what one client made one after the other, the beginning is there.
        let there: Vec<bool> = in_order
            .iter()
            .map(|slug| restored.follow(slug).0 == 302)
            .collect();
        let kept = there.iter().filter(|there| **there).count();
        assert!(there[..kept].iter().all(|there| *there), "{there:?}");
        assert!(kept < in_order.len(), "nothing was made after the backup");
        // The key of before is still one, and the secrets are the same.
        let path = format!("/api/v1/links/{}", before[0]);
        let read = restored.request("GET", &path).bearer_auth(&key);
        let link: Value = read.send().unwrap().json().unwrap();
        let edit = json!({ "longUrl": "https://example.com/edited" });
        let edited: Value = restored.send("PATCH", &path, &key, &edit).json().unwrap();
        assert!(edited["version"].as_u64() > link["version"].as_u64().map(|v| v + (1 << 32)));
        for slug in create(&restored, &key, 2_000) {
            assert!(issued.insert(slug), "a slug was given out twice");
        }
        restored.kill();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn clicks_that_wait_in_the_spool_are_counted_once_after_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.age"));
    let waypost = Waypost::start(&data);
    let slug = waypost.shorten("https://example.com/waiting");
    waypost.follow(&slug);
    wait_until("a click is counted", || waypost.clicks(&slug) == 1);
    // Nothing is counted while somebody else writes.
    let held = Connection::open(data.join("clicks.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..6 {
        waypost.follow(&slug);
    }
    wait_until("the clicks are in the spool", || {
        waypost.metric("waypost_clicks_spooled_total") >= 7.0
    });
    waypost.kill();
    drop(held);
    back_up(&data, &file);
    let restored = folder.path().join("restored");
    restore(&file, &restored);
    for _ in 0..2 {
        let waypost = Waypost::start(&restored);
        wait_until("all are counted", || waypost.clicks(&slug) >= 7);
        assert!(waypost.terminate().success());
        let waypost = Waypost::start(&restored);
        assert_eq!(waypost.clicks(&slug), 7);
        waypost.kill();
    }
}

#[test]
fn nothing_but_a_whole_backup_is_restored_and_only_into_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.age"));
    let waypost = Waypost::start(&data);
    let slug = waypost.shorten("https://example.com/kept");
    let full = run(&["restore"], &file, &data);
    assert!(said(&full).contains("is not empty"), "{}", said(&full));
    assert_eq!(waypost.follow(&slug).0, 302);
    back_up(&data, &file);
    // Whoever can read the disk cannot read it.
    let sealed = std::fs::read(&file).unwrap();
    let has = |needle: &[u8]| sealed.windows(needle.len()).any(|window| window == needle);
    assert!(!has(b"example.com") && has(b"age-encryption.org/v1\n-> scrypt "));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let target = folder.path().join("target");
    let wrong = run_with(&["restore"], &file, &target, "correct horse batterz");
    is_refused(&wrong, &target, "the passphrase is another");
    let broken = folder.path().join("broken.age");
    for (name, bytes, because) in [
        (
            "cut off",
            sealed[..sealed.len() - 100].to_vec(),
            "damaged or cut off",
        ),
        (
            "changed",
            {
                let mut changed = sealed.clone();
                changed[sealed.len() / 2] ^= 1;
                changed
            },
            "damaged or cut off",
        ),
        (
            "another",
            b"{\"slug\": \"abc\"}\n".to_vec(),
            "does not begin as a backup",
        ),
    ] {
        std::fs::write(&broken, bytes).unwrap();
        let output = run(&["restore"], &broken, &target);
        is_refused(&output, &target, because);
        assert!(!target.join("links.db").exists(), "{name}");
    }
    // An empty folder is as good as none.
    std::fs::create_dir_all(&target).unwrap();
    restore(&file, &target);
    assert_eq!(Waypost::start(&target).follow(&slug).0, 302);
}

#[test]
fn a_backup_that_would_not_help_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.age"));
    let fails = |because: &str| {
        let output = run(&["backup"], &file, &data);
        assert!(!output.status.success(), "{because}");
        assert!(said(&output).contains(because), "{}", said(&output));
        assert!(!file.exists() && !folder.path().join("backup.age.part").exists());
        assert!(!data.join("backup.tmp").join("links.db").exists());
    };
    fails("no instance has its data there");
    let waypost = Waypost::start(&data);
    waypost.shorten("https://example.com/");
    let short = run_with(&["backup"], &file, &data, "short");
    assert_eq!(short.status.code(), Some(64), "{}", said(&short));
    let none = command()
        .args(["backup", "-", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::null())
        .output();
    assert!(said(&none.unwrap()).contains("no terminal to ask"));
    let no_room = command()
        .args(["backup", "-", "--data-dir"])
        .arg(&data)
        .env("WAYPOST_BACKUP_PASSPHRASE", PASSPHRASE)
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert!(
        said(&no_room).contains("No space left on device"),
        "{}",
        said(&no_room)
    );
    waypost.kill();
    // Secrets of another instance.
    let secret = data.join("secrets/link-mac");
    let ours = std::fs::read(&secret).unwrap();
    std::fs::write(&secret, format!("1:{}\n", "7".repeat(64))).unwrap();
    fails("do not belong together");
    std::fs::write(&secret, ours).unwrap();
    // A disk that has lost a page: some page of the links, whichever it is.
    let database = Connection::open(data.join("links.db")).unwrap();
    let pages: i64 = database
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(database);
    let path = data.join("links.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.len() / usize::try_from(pages).unwrap();
    for at in 1..usize::try_from(pages).unwrap() {
        bytes[at * page..at * page + 64].fill(0xee);
    }
    std::fs::write(&path, bytes).unwrap();
    fails("damaged");
}

#[test]
fn nothing_is_served_from_half_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("restore.tmp")).unwrap();
    let mut child = command()
        .env("WAYPOST_DATA_DIR", folder.path())
        .env("WAYPOST_LISTEN", "127.0.0.1:0")
        .env("WAYPOST_ADMIN_LISTEN", "127.0.0.1:0")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ended = false;
    wait_until("it ends or serves", || {
        ended = child.try_wait().unwrap().is_some();
        ended || folder.path().join("links.db").exists()
    });
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(ended, "it serves");
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("a restore did not come to its end"));
    assert!(!folder.path().join("links.db").exists());
}

#[test]
fn a_backup_goes_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let waypost = Waypost::start(&data);
    let user = User::of(&waypost, &data, "shop");
    let link = json!({ "longUrl": "https://example.com/", "alias": "mine" });
    assert_eq!(user.send("POST", "/api/v1/links", &link).0, 201);
    let output = run(&["backup"], Path::new("-"), &data);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("Nobody has read it back"));
    let file = folder.path().join("from-a-pipe");
    std::fs::write(&file, output.stdout).unwrap();
    let target = folder.path().join("target");
    let restored = command()
        .args(["restore", "-", "--data-dir"])
        .arg(&target)
        .env("WAYPOST_BACKUP_PASSPHRASE", PASSPHRASE)
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", said(&restored));
    assert_eq!(Waypost::start(&target).follow("mine").0, 302);
}
