//! Clicks, added up by link and day and by tenant and day.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use uuid::Uuid;
use waypost_proto::click::{Batch, Click};

use crate::agent::{Agent, Agents};
use crate::counts::{Clicks, Counts, DIMENSIONS, Dimension, HOURS};
use crate::sketch::Sketch;

pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// A host's name is not longer, and a language tag that is in use is far shorter.
/// What is longer is no value of its own.
const MAX_HOST: usize = 253;
const MAX_LANGUAGE: usize = 8;

/// What batches add to the rollups. Rows are in the order of their keys, in which
/// they are locked.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    pub(crate) links: Vec<LinkDay<'a>>,
    pub(crate) clicks: u64,
    /// The newest click of each partition, in milliseconds.
    pub(crate) newest: BTreeMap<u32, i64>,
    values: Vec<Cow<'a, str>>,
    /// By row, dimension and value, in this order.
    counted: Vec<(Place, u32)>,
    /// By row, and each once.
    visitors: Vec<(u32, u64)>,
}

/// What is added to one link on one day, out of one partition of the log.
#[derive(Debug)]
pub(crate) struct LinkDay<'a> {
    pub(crate) link: Uuid,
    pub(crate) day: i32,
    pub(crate) partition: u32,
    pub(crate) tenant: &'a str,
    pub(crate) sum: Clicks,
    domain: u32,
    slug: &'a str,
    hours: Vec<(u8, Clicks)>,
    counted: Range<usize>,
    visitors: Range<usize>,
}

/// What is added to one tenant on one day, out of one partition of the log.
#[derive(Debug)]
pub(crate) struct TenantDay<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) day: i32,
    pub(crate) partition: u32,
    pub(crate) sum: Clicks,
    hours: [Clicks; HOURS],
    /// What links are called here, and their clicks.
    links: Vec<(Vec<u8>, u64)>,
}

/// What a row holds after a tally, and what of it was unreadable before.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) counts: Vec<u8>,
    /// None: as it was.
    pub(crate) sketch: Option<(Vec<u8>, u64)>,
    pub(crate) was_unreadable: bool,
}

/// Row, dimension and value in one number, so that sorting is fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    const VALUE_BITS: u32 = 30;

    fn new(row: u32, dimension: Dimension, value: u32) -> Self {
        let row = u64::from(row) << 3 | dimension as u64;
        Self(row << Self::VALUE_BITS | u64::from(value))
    }

    fn row(self) -> u32 {
        (self.0 >> (Self::VALUE_BITS + 3)) as u32
    }

    fn dimension(self) -> usize {
        (self.0 >> Self::VALUE_BITS) as usize & 7
    }

    fn value(self) -> usize {
        self.0 as usize & ((1 << Self::VALUE_BITS) - 1)
    }
}

impl<'a> Tally<'a> {
    pub(crate) fn of(
        batches: impl Iterator<Item = &'a Batch>,
        agents: &Agents,
        now_ms: i64,
    ) -> Self {
        let mut adding = Adding {
            now_ms,
            agents,
            told: HashMap::new(),
            rows: HashMap::new(),
            links: Vec::new(),
            interned: HashMap::new(),
            values: Vec::new(),
            places: Vec::new(),
            visitors: Vec::new(),
            newest: BTreeMap::new(),
            clicks: 0,
        };
        for batch in batches {
            for click in &batch.clicks {
                adding.add(batch.partition, click);
            }
        }
        adding.tally()
    }

    /// The tenants' rows, in the order of their keys.
    pub(crate) fn tenants(&self) -> Vec<TenantDay<'a>> {
        let mut days: BTreeMap<(&str, i32, u32), TenantDay<'a>> = BTreeMap::new();
        for row in &self.links {
            let key = (row.tenant, row.day, row.partition);
            let day = days.entry(key).or_insert_with(|| TenantDay {
                tenant: row.tenant,
                day: row.day,
                partition: row.partition,
                sum: Clicks::default(),
                hours: [Clicks::default(); HOURS],
                links: Vec::new(),
            });
            day.sum += row.sum;
            for (hour, clicks) in &row.hours {
                day.hours[usize::from(*hour)] += *clicks;
            }
            day.links.push((row.name(), row.sum.clicks));
        }
        days.into_values().collect()
    }

    /// Adds one of the rows to what is stored of it.
    pub(crate) fn merge(&self, row: &LinkDay<'_>, stored: Option<(&[u8], &[u8])>) -> Merged {
        let read =
            stored.map(|(counts, sketch)| (Counts::read(counts, DIMENSIONS), Sketch::read(sketch)));
        let (counts, sketch) =
            read.unwrap_or_else(|| (Some(Counts::new(DIMENSIONS)), Some(Sketch::new())));
        let was_unreadable = counts.is_none() || sketch.is_none();
        let mut counts = counts.unwrap_or_else(|| Counts::new(DIMENSIONS));
        let mut sketch = sketch.unwrap_or_else(Sketch::new);
        for (hour, clicks) in &row.hours {
            counts.hours[usize::from(*hour)] += *clicks;
        }
        let counted =
            self.counted[row.counted.clone()].chunk_by(|a, b| a.0.dimension() == b.0.dimension());
        for values in counted {
            let dimension = values[0].0.dimension();
            let value = |place: Place| self.values[place.value()].as_bytes();
            let mut values: Vec<(&[u8], u64)> = values
                .iter()
                .map(|(place, count)| (value(*place), u64::from(*count)))
                .collect();
            counts.tops[dimension].add(&mut values);
        }
        let visitors = self.visitors[row.visitors.clone()].iter();
        let changed = sketch.add(visitors.map(|(_, visitor)| *visitor));
        let sketch = (changed || stored.is_none() || was_unreadable)
            .then(|| (sketch.to_bytes(), sketch.estimate()));
        Merged {
            counts: counts.to_bytes(),
            sketch,
            was_unreadable,
        }
    }
}

impl LinkDay<'_> {
    /// What the link is called among its tenant's: see [`link_of_name`].
    fn name(&self) -> Vec<u8> {
        let domain = self.domain.to_be_bytes();
        [self.link.as_bytes(), &domain[..], self.slug.as_bytes()].concat()
    }
}

/// A link's id, its domain and its slug, out of what it is called among its tenant's.
pub(crate) fn link_of_name(name: &[u8]) -> Option<(Uuid, u32, &str)> {
    let (link, rest) = name.split_at_checked(16)?;
    let (domain, slug) = rest.split_first_chunk::<4>()?;
    let slug = std::str::from_utf8(slug).ok()?;
    Some((
        Uuid::from_slice(link).ok()?,
        u32::from_be_bytes(*domain),
        slug,
    ))
}

impl TenantDay<'_> {
    /// Adds the row to what is stored of it.
    pub(crate) fn merge(&self, stored: Option<&[u8]>) -> Merged {
        let read = stored.map_or_else(|| Some(Counts::new(1)), |stored| Counts::read(stored, 1));
        let was_unreadable = read.is_none();
        let mut counts = read.unwrap_or_else(|| Counts::new(1));
        for (held, clicks) in counts.hours.iter_mut().zip(self.hours) {
            *held += clicks;
        }
        let links = self.links.iter().map(|(name, clicks)| (&**name, *clicks));
        counts.tops[0].add(&mut links.collect::<Vec<_>>());
        Merged {
            counts: counts.to_bytes(),
            sketch: None,
            was_unreadable,
        }
    }
}

/// A tally under way.
struct Adding<'a, 'b> {
    now_ms: i64,
    agents: &'b Agents,
    told: HashMap<&'a str, Agent>,
    rows: HashMap<(&'a [u8], i32, u32), u32>,
    links: Vec<LinkDay<'a>>,
    interned: HashMap<Cow<'a, str>, u32>,
    values: Vec<Cow<'a, str>>,
    places: Vec<Place>,
    visitors: Vec<(u32, u64)>,
    newest: BTreeMap<u32, i64>,
    clicks: u64,
}

impl<'a> Adding<'a, '_> {
    fn add(&mut self, partition: u32, click: &'a Click) {
        let agents = self.agents;
        let agent = *self
            .told
            .entry(&click.user_agent)
            .or_insert_with(|| agents.tell(&click.user_agent));
        // A prefetch is a program's doing, until somebody clicks.
        let is_bot = click.prefetch || agent.is_bot;
        let row = self.row(partition, click);
        let hour = (click.time_ms.rem_euclid(DAY_MS) / HOUR_MS) as u8;
        let clicks = Clicks {
            clicks: 1,
            bots: is_bot.into(),
        };
        let link = &mut self.links[row as usize];
        link.sum += clicks;
        match link.hours.iter_mut().find(|(held, _)| *held == hour) {
            Some((_, held)) => *held += clicks,
            None => link.hours.push((hour, clicks)),
        }
        self.clicks += 1;
        // A gateway's clock may be ahead; nothing is counted up to the future.
        let time = click.time_ms.min(self.now_ms);
        let newest = self.newest.entry(partition).or_insert(time);
        *newest = time.max(*newest);
        if is_bot {
            return;
        }
        self.visitors.push((row, click.visitor));
        let values = [
            (Dimension::Referrer, host(&click.referrer_host)),
            (Dimension::Country, country(&click.country)),
            (Dimension::Device, agent.device.into()),
            (Dimension::Browser, agent.browser.into()),
            (Dimension::Os, agent.os.into()),
            (Dimension::Language, language(&click.language)),
        ];
        for (dimension, value) in values {
            let value = self.intern(value);
            self.places.push(Place::new(row, dimension, value));
        }
    }

    fn row(&mut self, partition: u32, click: &'a Click) -> u32 {
        let day = i32::try_from(click.time_ms.div_euclid(DAY_MS)).unwrap_or(i32::MAX);
        let next = self.links.len() as u32;
        let row = *self
            .rows
            .entry((&click.link_id, day, partition))
            .or_insert(next);
        if row == next {
            self.links.push(LinkDay {
                link: Uuid::from_slice(&click.link_id).unwrap_or_default(),
                day,
                partition,
                tenant: &click.tenant,
                sum: Clicks::default(),
                domain: click.domain,
                slug: &click.slug,
                hours: Vec::new(),
                counted: 0..0,
                visitors: 0..0,
            });
        }
        row
    }

    fn intern(&mut self, value: Cow<'a, str>) -> u32 {
        if let Some(id) = self.interned.get(&value) {
            return *id;
        }
        let id = self.values.len() as u32;
        self.values.push(value.clone());
        self.interned.insert(value, id);
        id
    }

    fn tally(mut self) -> Tally<'a> {
        self.places.sort_unstable();
        let runs = self.places.chunk_by(|a, b| a == b);
        let counted: Vec<(Place, u32)> = runs.map(|run| (run[0], run.len() as u32)).collect();
        self.visitors.sort_unstable();
        self.visitors.dedup();
        let (mut counted_at, mut visitors_at) = (0, 0);
        for (row, link) in (0..).zip(&mut self.links) {
            let count = counted[counted_at..].iter();
            let end = counted_at + count.take_while(|(place, _)| place.row() == row).count();
            link.counted = std::mem::replace(&mut counted_at, end)..end;
            let visitors = self.visitors[visitors_at..].iter();
            let end = visitors_at + visitors.take_while(|(of, _)| *of == row).count();
            link.visitors = std::mem::replace(&mut visitors_at, end)..end;
        }
        self.links
            .sort_unstable_by_key(|link| (link.link, link.day, link.partition));
        Tally {
            links: self.links,
            clicks: self.clicks,
            newest: self.newest,
            values: self.values,
            counted,
            visitors: self.visitors,
        }
    }
}

fn host(host: &str) -> Cow<'_, str> {
    if host.len() <= MAX_HOST {
        host.into()
    } else {
        "".into()
    }
}

fn country(country: &str) -> Cow<'_, str> {
    if country.len() == 2 {
        country.into()
    } else {
        "".into()
    }
}

/// `de` of `de-CH`: what people speak, and of a bounded length.
fn language(tag: &str) -> Cow<'_, str> {
    let primary = tag.split('-').next().unwrap_or_default();
    match primary.len() <= MAX_LANGUAGE {
        true if primary.bytes().any(|b| b.is_ascii_uppercase()) => {
            primary.to_ascii_lowercase().into()
        }
        true => primary.into(),
        false => "".into(),
    }
}
