//! What recording a click takes of its redirect's time, for `cargo xtask bench
//! redirect-hot`: nanoseconds a click of each turn, a line each.
//!
//! Everything is there but the broker: the buffers, the thread that takes them, and the
//! spool on the disk that the temporary folder is on.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use uuid::Uuid;
use waypost_domain::{Slug, Timestamp};
use waypost_gateway::clicks::{
    ClickLog, ClickedLink, Clicks, Flushed, Hit, Payload, PublishError, Settings,
};
use waypost_runtime::metrics::Registry;

const TURNS: usize = 100;

/// What one thread has between two commits at 50,000 redirects a second.
const CLICKS_PER_TURN: u32 = 2_000;

const FLUSH: Duration = Duration::from_secs(20);

/// Has everything at once.
struct Away;

impl ClickLog for Away {
    async fn publish(&self, _: Payload) -> Result<(), PublishError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let settings = Settings {
        gateway: "gateway-1".to_owned(),
        threads: 2,
        folder: folder.path().to_owned(),
        max_bytes: Settings::DEFAULT_MAX_BYTES,
        visitor_key: [1; 32],
        country_header: None,
        countries: None,
    };
    let clicks = Clicks::start(&settings, Away, &Registry::new())?;
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
    let slug = Slug::parse("abcdefgh")?;
    let hit = Hit {
        link: ClickedLink {
            domain: 0,
            slug: slug.borrowed(),
            id: Uuid::from_u128(1),
            tenant: "acme",
        },
        status: 302,
        headers: &headers,
        client: IpAddr::from([192, 0, 2, 1]),
        at: Timestamp::from_millis(1_000).ok_or("a time")?,
        trace: None,
    };
    for _ in 0..TURNS {
        let began = Instant::now();
        for _ in 0..CLICKS_PER_TURN {
            clicks.record(&hit);
        }
        let took = began.elapsed();
        println!("{}", took.as_nanos() / u128::from(CLICKS_PER_TURN));
        if clicks.flush(Instant::now() + FLUSH).await != Flushed::All {
            return Err("the clicks were not committed in time".into());
        }
    }
    Ok(())
}
