//! What a blocklist of a million entries takes: `cargo bench -p waypost-domain`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::Instant;

use waypost_domain::LongUrl;
use waypost_domain::blocklist::Builder;
use waypost_domain::destination::Policy;

const ENTRIES: usize = 1_000_000;
const URLS: usize = 200_000;

fn main() {
    let text: String = (0..ENTRIES)
        .map(|n| match n % 10 {
            0 => format!("sites-{}.example/user-{n}/page\n", n % 977),
            _ => format!("host-{n}.bad-{}.example\n", n % 9_973),
        })
        .collect();
    let started = Instant::now();
    let mut builder = Builder::new(7, ["go.example.org"]);
    builder.read(&text).unwrap();
    let list = builder.build().unwrap();
    let loading = started.elapsed();
    println!(
        "load    {} entries from {} bytes in {loading:.0?}, {} bytes kept",
        list.len(),
        text.len(),
        list.bytes()
    );

    let texts: Vec<String> = (0..URLS)
        .map(|n| {
            format!(
                "https://www.host-{n}.good-{}.example/a/path-{n}?x=y",
                n % 101
            )
        })
        .collect();
    let each = |what: &str, started: Instant| {
        let nanos = started.elapsed().as_nanos() as usize / URLS;
        println!("{what:7} {nanos} ns");
    };
    let started = Instant::now();
    let urls: Vec<LongUrl> = texts
        .iter()
        .map(|text| LongUrl::parse(text).unwrap())
        .collect();
    each("parse", started);
    let policy = Policy::default().own_base(&LongUrl::parse("https://go.example.org").unwrap());
    let started = Instant::now();
    for url in &urls {
        policy.check(black_box(url)).unwrap();
    }
    each("policy", started);
    let started = Instant::now();
    let blocked = urls
        .iter()
        .filter(|url| list.blocks(black_box(url.as_str())));
    assert_eq!(blocked.count(), 0);
    each("look up", started);
}
