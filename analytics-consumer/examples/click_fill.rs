//! Fills a topic with batches of clicks as gateways would, for `cargo xtask bench
//! clicks`, and writes the same clicks down for `COPY`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use uuid::Uuid;
use waypost_domain::click::{PARTITIONS, partition};
use waypost_proto::click::{Batch, Click};

/// What a busy gateway has for one partition within 50 ms.
const CLICKS_PER_BATCH: usize = 200;

const FLUSH: Duration = Duration::from_secs(120);

/// Like those of a day.
const VISITORS: u64 = 5_000_000;
const USER_AGENTS: u64 = 600;
const REFERRERS: u64 = 200;
const COUNTRIES: [&str; 8] = ["US", "DE", "FR", "GB", "IN", "BR", "JP", "CH"];
const LANGUAGES: [&str; 6] = ["en-US", "de-DE", "fr-FR", "en-GB", "pt-BR", "ja"];

#[derive(Debug, clap::Parser)]
struct Options {
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    topic: String,
    /// Of the batches' identity
    #[arg(long)]
    boot: u64,
    #[arg(long)]
    clicks: usize,
    #[arg(long)]
    links: usize,
    /// Links are popular by Zipf's law with exponent 1, instead of evenly
    #[arg(long)]
    zipf: bool,
    /// Where the same clicks are written, as `COPY` takes them
    #[arg(long)]
    copy: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &options.kafka)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .create()?;
    let mut copy = BufWriter::new(File::create(&options.copy)?);
    let mut random = fastrand::Rng::with_seed(options.boot);
    let popularity = Popularity::new(options.links, options.zipf);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let now = i64::try_from(now)?;
    let mut pending: Vec<Vec<Click>> = vec![Vec::new(); PARTITIONS as usize];
    let mut sequences = [0; PARTITIONS as usize];
    let mut line = String::new();
    for _ in 0..options.clicks {
        let click = click(popularity.draw(&mut random), now, &mut random);
        line.clear();
        write_line(&click, &mut line);
        copy.write_all(line.as_bytes())?;
        let at = partition(click.slug.as_bytes());
        let clicks = &mut pending[at as usize];
        clicks.push(click);
        if clicks.len() == CLICKS_PER_BATCH {
            let clicks = std::mem::take(clicks);
            send(&producer, &options, at, &mut sequences, clicks)?;
        }
    }
    for (at, clicks) in (0..).zip(pending) {
        if !clicks.is_empty() {
            send(&producer, &options, at, &mut sequences, clicks)?;
        }
    }
    copy.flush()?;
    producer.flush(FLUSH)?;
    Ok(())
}

fn send(
    producer: &BaseProducer,
    options: &Options,
    partition: u32,
    sequences: &mut [u64; PARTITIONS as usize],
    clicks: Vec<Click>,
) -> Result<(), KafkaError> {
    let sequence = &mut sequences[partition as usize];
    let batch = Batch {
        format: 1,
        gateway: "bench".to_owned(),
        boot: options.boot,
        partition,
        sequence: *sequence,
        clicks,
    };
    *sequence += 1;
    let payload = batch.encode_to_vec();
    let mut record = BaseRecord::<(), [u8]>::to(&options.topic)
        .partition(partition.cast_signed())
        .payload(&payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Which link comes next.
struct Popularity {
    links: usize,
    /// Of Zipf's law, added up.
    weights: Vec<f64>,
}

impl Popularity {
    fn new(links: usize, zipf: bool) -> Self {
        let mut sum = 0.0;
        let ranks = if zipf { links } else { 0 };
        let weights = (1..=ranks).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self {
            links,
            weights: weights.collect(),
        }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        match self.weights.last() {
            None => random.usize(..self.links),
            Some(sum) => {
                let at = random.f64() * sum;
                self.weights.partition_point(|weight| *weight < at)
            }
        }
    }
}

fn click(link: usize, now: i64, random: &mut fastrand::Rng) -> Click {
    let mixed = (link as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let agent = random.u64(..USER_AGENTS);
    let referrer = random.u64(..REFERRERS) * random.u64(..REFERRERS) / REFERRERS;
    Click {
        time_ms: now - random.i64(0..60_000),
        domain: 0,
        slug: format!("{link:08}"),
        link_id: Uuid::from_u128(mixed).as_bytes().to_vec(),
        tenant: format!("tenant-{}", link % 100),
        status: 302,
        referrer_host: format!("www.referrer-{referrer}.example"),
        user_agent: format!(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/{agent}.0.0.0 Safari/537.36"
        ),
        language: LANGUAGES[random.usize(..LANGUAGES.len())].to_owned(),
        country: COUNTRIES[random.usize(..COUNTRIES.len())].to_owned(),
        visitor: random.u64(..VISITORS),
        prefetch: false,
        trace: Vec::new(),
    }
}

/// None of these texts has anything in it that `COPY` would have escaped.
fn write_line(click: &Click, line: &mut String) {
    let link = Uuid::from_slice(&click.link_id).unwrap_or_default();
    let _ = writeln!(
        line,
        "{}\t{}\t{}\t{link}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        click.time_ms,
        click.domain,
        click.slug,
        click.tenant,
        click.status,
        click.referrer_host,
        click.user_agent,
        click.language,
        click.country,
        click.visitor.cast_signed(),
        click.prefetch,
    );
}
