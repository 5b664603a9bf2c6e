//! The corpora, and variations of them, through the targets: what the fuzzer once found
//! stays mended.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

/// Variations of each corpus: a second or two of an unoptimised build.
const VARIATIONS: usize = 20_000;

/// The same ones each time.
const SEED: u64 = 20_261_125;

/// Bytes that mean something to some format.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff \t\r\n%/:@?#[]\\.-_+\"'<>&=0aZ";

#[test]
fn urls_are_taken_in_one_form_or_refused() {
    replay("url", waypost_fuzz::url);
}

#[test]
fn slugs_are_what_the_rules_say() {
    replay("slug", waypost_fuzz::slug);
}

#[test]
fn tokens_of_nobody_are_taken_for_nobodys() {
    replay("token", waypost_fuzz::token);
}

#[test]
fn cached_values_are_their_slugs_own_or_nothing() {
    replay("cache_value", waypost_fuzz::cache_value);
}

#[test]
fn batches_of_clicks_can_be_stored_or_are_refused() {
    replay("clicks", waypost_fuzz::clicks);
}

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(corpus.len() >= 3, "{} is nearly empty", folder.display());
    for (file, bytes) in files.iter().zip(&corpus) {
        attempt(target, bytes, &file.display().to_string());
    }
    let mut random = Rng::with_seed(SEED);
    for number in 0..VARIATIONS {
        let varied = vary(&corpus, &mut random);
        attempt(target, &varied, &format!("variation {number}"));
    }
}

fn attempt(target: fn(&[u8]), bytes: &[u8], what: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    assert!(outcome.is_ok(), "{what}: {}", bytes.escape_ascii());
}

/// An entry of the corpus, changed in a few places.
fn vary(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = random.choice(corpus).unwrap().clone();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        let end = (at + random.usize(0..=8)).min(bytes.len());
        match random.u8(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            1 if at < bytes.len() => bytes[at] = *random.choice(TELLING).unwrap(),
            2 => bytes.insert(at, *random.choice(TELLING).unwrap()),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
            5 => {
                let other = random.choice(corpus).unwrap();
                let from = random.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }
    bytes
}
