//! What a redirect that is not traced pays for the fact that it could be, for `cargo xtask
//! bench redirect-hot`: nanoseconds a request of each turn, a line each, first without a
//! collector and then with one.

use std::hint::black_box;
use std::time::Instant;

use http::{HeaderMap, Method};
use waypost_gateway::trace;
use waypost_runtime::traces::{self, Sampler};

const TURNS: usize = 100;

const REQUESTS_PER_TURN: u32 = 100_000;

/// So that none of them is traced.
const NEVER: u32 = u32::MAX;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // As a browser sends them.
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "go.example.com"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        ("accept", "*/*"),
        ("accept-language", "de-CH,de;q=0.8"),
        ("referer", "https://news.example.com/"),
    ] {
        headers.insert(name, value.parse()?);
    }
    for _ in 0..TURNS {
        let without = turn(&Sampler::OFF, &headers);
        let with = turn(&Sampler::one_in(NEVER), &headers);
        println!("{without:.2} {with:.2}");
    }
    Ok(())
}

/// What stands on the way of a redirect out of memory: the decision, and whose span its
/// click belongs to.
fn turn(sampler: &Sampler, headers: &HeaderMap) -> f64 {
    let began = Instant::now();
    for _ in 0..REQUESTS_PER_TURN {
        let (sampler, headers) = black_box((sampler, headers));
        let span = trace::begin(sampler, &Method::GET, headers);
        black_box((span, traces::place()));
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS_PER_TURN)
}
