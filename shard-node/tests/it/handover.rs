//! Moving prefixes between two databases, step by step and at random.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use uuid::Uuid;
use waypost_domain::{ChangeId, Epoch, Link, Prefix, Source, State};
use waypost_shard_node::store::postgres::{
    Digest, Kind, OwnerChange, PostgresSession, PostgresStore, Refused, Stretch,
};
use waypost_shard_node::store::{
    Claim, Claimed, Created, Error, Lease, Leased, LinkStore as _, Purpose, Resolved, Session as _,
    Write, WriteKind, Writer, Written,
};
use waypost_testbed::Postgres;

use crate::fixture::*;

/// One of two shards.
struct Side {
    url: String,
    store: PostgresStore,
}

impl Side {
    async fn open(id: &str) -> Self {
        let url = tokio::task::spawn_blocking(|| Postgres::shared().unwrap().fresh_database());
        let url = url.await.unwrap().unwrap();
        let options = PgConnectOptions::from_str(&url).unwrap();
        let store = PostgresStore::new(options, shard(id), key_ring());
        store.prepare(&map_of(&["s0", "s1"])).await.unwrap();
        Self { url, store }
    }

    async fn session(&self) -> PostgresSession {
        self.store.connect(Purpose::Write).await.unwrap()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let options = PgConnectOptions::from_str(&self.url).unwrap();
        let mut connection = options.connect().await.unwrap();
        let count = sqlx::query_scalar(sql).fetch_one(&mut connection);
        count.await.unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        let options = PgConnectOptions::from_str(&self.url).unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
}

async fn sides() -> (Side, Side) {
    (Side::open("s0").await, Side::open("s1").await)
}

/// A prefix that the first of the two shards begins with.
fn ours(nth: usize) -> Prefix {
    let map = map_of(&["s0", "s1"]);
    let mut prefixes = Prefix::all().filter(|prefix| map.owner_index(*prefix) == 0);
    prefixes.nth(nth).unwrap()
}

fn to(prefix: Prefix, epoch: u32) -> OwnerChange {
    OwnerChange {
        prefix,
        epoch: Epoch::new(epoch).unwrap(),
    }
}

const LONG: Duration = Duration::from_secs(30);

/// Makes the taker's rows the giver's, in small stretches. Gives how many were written.
async fn copy(
    giver: &mut PostgresSession,
    taker: &mut PostgresSession,
    prefix: Prefix,
    move_id: Uuid,
) -> Result<usize, Refused> {
    let mut written = 0;
    for kind in Kind::ALL {
        let mut stretch = Stretch::whole(prefix, kind);
        loop {
            let here = giver.page(&stretch, Some(3)).await?;
            let mut part = stretch.clone();
            if let Some(upto) = &here.upto {
                part.upto = upto.clone();
            }
            let there = taker.page(&part, None).await?;
            if (here.rows, &here.sum) != (there.rows, &there.sum) {
                taker.put(&part, move_id, &here.json).await?;
                written += 1;
            }
            let Some(upto) = here.upto else { break };
            stretch.after = upto;
        }
    }
    Ok(written)
}

/// Copies, and compares, as a mover does.
async fn compare(
    giver: &mut PostgresSession,
    taker: &mut PostgresSession,
    change: OwnerChange,
) -> Result<(), Refused> {
    loop {
        let move_id = Uuid::now_v7();
        taker.admit(&[change], &shard("s0"), move_id, true).await?;
        if copy(giver, taker, change.prefix, move_id).await? == 0 {
            break;
        }
    }
    let (here, there) = (
        giver.digests(&[change.prefix]).await?,
        taker.digests(&[change.prefix]).await?,
    );
    assert_eq!(here, there);
    Ok(())
}

/// Moves a prefix from the first shard to the second.
async fn hand_over(giver: &mut PostgresSession, taker: &mut PostgresSession, change: OwnerChange) {
    let freeze = Uuid::now_v7();
    giver.freeze(&[change], freeze, LONG).await.unwrap();
    compare(giver, taker, change).await.unwrap();
    giver
        .release(&[change], &shard("s1"), freeze)
        .await
        .unwrap();
    assert_eq!(taker.take(&[change]).await.unwrap(), 1);
}

/// As the relay does when the cache has taken all changes.
async fn apply(side: &Side) {
    side.execute("UPDATE outbox SET applied_at = clock_timestamp() WHERE applied_at IS NULL")
        .await;
}

fn lease(link: &Link, wanted: u32, lease_id: Uuid) -> Lease {
    Lease {
        key: link.key.clone(),
        link_id: link.id,
        wanted,
        lease_id,
        returned: 0,
    }
}

async fn leased(session: &mut PostgresSession, lease: &Lease) -> Leased {
    let outcomes = session.lease_visits(std::slice::from_ref(lease)).await;
    outcomes.unwrap().remove(0)
}

async fn found(session: &mut PostgresSession, slug: &str) -> Resolved {
    session.resolve_batch(&[key(slug)]).await.unwrap().remove(0)
}

fn rows(digests: &[Digest]) -> Vec<u64> {
    digests.iter().map(|digest| digest.rows).collect()
}

fn is_outdated<T>(outcome: Result<T, Refused>) -> bool {
    matches!(outcome.err(), Some(Refused::Outdated))
}

/// A source whose claim belongs to a prefix, found by trying.
fn source_of(prefix: Prefix) -> Source {
    let source = |n: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Source {
            id,
            digest: Some([9; 16]),
        }
    };
    let mut sources = (0..).map(source);
    sources
        .find(|source| source.slug(0).prefix() == prefix)
        .unwrap()
}

#[tokio::test]
async fn a_prefix_moves_with_all_that_belongs_to_it() {
    let (here, there) = sides().await;
    let (mut giver, mut taker) = (here.session().await, there.session().await);
    let (prefix, other) = (ours(5), ours(6));
    let slug = |name: &str| format!("{prefix}{name}");
    let mut links = BTreeMap::new();
    let mut new = alias(&slug("-full"));
    new.title = Some("a \"title\" with \\ and 'so', \u{1f600}\u{1} {}".to_owned());
    new.tags = vec!["a b".to_owned(), "\"{,}\\".to_owned(), String::new()];
    new.password_hash = Some("$argon2id$x".to_owned());
    new.valid_until = Some(waypost_domain::Timestamp::MAX);
    create(&mut giver, &new).await;
    let full = update(&mut giver, &slug("-full"), "https://example.com/%C3%A4/2").await;
    links.insert(slug("-full"), full);
    for n in 0..20 {
        let slug = slug(&format!("{n:06}"));
        links.insert(slug.clone(), create(&mut giver, &minted(&slug)).await);
    }
    create(&mut giver, &alias(&slug("-gone"))).await;
    links.insert(slug("-gone"), delete(&mut giver, &slug("-gone")).await);
    create(&mut giver, &alias(&slug("-down"))).await;
    let block = WriteKind::Update(Box::new(waypost_domain::Patch {
        state: Some(State::Blocked),
        ..Default::default()
    }));
    let down = written(&write_by(&mut giver, Writer::Operator, &slug("-down"), block).await);
    links.insert(slug("-down"), down);
    let mut limited = alias(&slug("-limited"));
    limited.max_visits = Some(1_000);
    let limited = create(&mut giver, &limited).await;
    let first = lease(&limited, 30, Uuid::now_v7());
    assert_eq!(leased(&mut giver, &first).await, Leased::Granted(30));
    links.insert(slug("-limited"), limited.clone());
    let source = source_of(prefix);
    let claim = |digest| Claim {
        key: waypost_domain::LinkKey {
            domain: waypost_domain::DomainId::MAIN,
            slug: source.slug(0),
        },
        id: source.id,
        digest,
    };
    assert_eq!(
        giver.claim(&claim([9; 16])).await.unwrap(),
        Claimed::Claimed
    );
    create(&mut giver, &minted(&format!("{other}000000"))).await;
    apply(&here).await;

    let change = to(prefix, 2);
    hand_over(&mut giver, &mut taker, change).await;

    for (slug, link) in &links {
        assert_eq!(
            found(&mut taker, slug).await,
            Resolved::Found(Box::new(link.clone()))
        );
        let Resolved::Moved(owner) = found(&mut giver, slug).await else {
            panic!("{slug} did not move");
        };
        assert_eq!((owner.shard, owner.epoch.get()), (shard("s1"), 2));
    }
    assert_eq!(
        rows(&taker.digests(&[prefix]).await.unwrap()),
        [24, 1, 1, 1]
    );
    // Not the neighbour.
    assert_eq!(rows(&taker.digests(&[other]).await.unwrap()), [0; 4]);
    // The retry of a lease whose answer was lost gets what it got, and no more.
    assert_eq!(leased(&mut taker, &first).await, Leased::Granted(30));
    let leased_in_all = "SELECT leased FROM visits";
    assert_eq!(there.count(leased_in_all).await, 30);
    assert_eq!(
        taker.claim(&claim([9; 16])).await.unwrap(),
        Claimed::Claimed
    );
    assert_eq!(taker.claim(&claim([8; 16])).await.unwrap(), Claimed::Reused);
    // What was changed lately is told to the cache once more, by who owns it now.
    let due = taker.oldest(100).await.unwrap();
    assert_eq!(due.len(), 3, "{due:?}");
    let edited = update(&mut taker, &slug("-full"), "https://example.com/3").await;
    assert!(edited.version > links[&slug("-full")].version);
    assert_eq!(
        edited.version,
        waypost_domain::Version::first(Epoch::new(2).unwrap())
    );
    // A takedown that is lifted leaves what was there before it.
    let lift = WriteKind::Update(Box::new(waypost_domain::Patch {
        state: Some(State::Active),
        ..Default::default()
    }));
    let lifted = write_by(&mut taker, Writer::Operator, &slug("-down"), lift).await;
    assert_eq!(written(&lifted).state, State::Active);

    // And what was left behind goes, but nothing else.
    assert!(is_outdated(
        giver.sweep(other, Epoch::new(2).unwrap(), 3).await
    ));
    assert!(is_outdated(
        giver.sweep(prefix, Epoch::new(3).unwrap(), 3).await
    ));
    assert!(is_outdated(taker.sweep(prefix, change.epoch, 3).await));
    let mut deleted = 0;
    loop {
        let step = giver.sweep(prefix, change.epoch, 3).await.unwrap();
        assert!(step <= 12);
        deleted += step;
        if step == 0 {
            break;
        }
    }
    assert_eq!(deleted, 24 + 1 + 1 + 1 + 3);
    assert_eq!(rows(&giver.digests(&[prefix]).await.unwrap()), [0; 4]);
    assert_eq!(here.count("SELECT count(*) FROM links").await, 1);
}

#[tokio::test]
async fn writes_to_a_frozen_prefix_are_put_off_and_reads_go_on() {
    let (here, _there) = sides().await;
    let mut session = here.session().await;
    let (prefix, other) = (ours(0), ours(1));
    let slug = format!("{prefix}000000");
    let mut new = alias(&slug);
    new.max_visits = Some(1_000);
    let link = create(&mut session, &new).await;
    let mut mover = here.session().await;
    let (earlier, freeze) = (Uuid::now_v7(), Uuid::now_v7());
    mover.freeze(&[to(prefix, 2)], freeze, LONG).await.unwrap();
    let batch = [
        minted(&format!("{prefix}000001")),
        minted(&format!("{other}000001")),
    ];
    let outcomes = session.create_batch(&batch).await.unwrap();
    assert_eq!(outcomes[0], Created::Frozen);
    assert!(matches!(outcomes[1], Created::Stored { .. }));
    assert_eq!(
        write(&mut session, &slug, WriteKind::Delete).await,
        Written::Frozen
    );
    let wanted = lease(&link, 1, Uuid::now_v7());
    assert_eq!(leased(&mut session, &wanted).await, Leased::Frozen);
    let claim = Claim {
        key: key(&slug),
        id: [1; 16],
        digest: [1; 16],
    };
    assert_eq!(session.claim(&claim).await.unwrap(), Claimed::Frozen);
    let row = session.export(None, 10).await.unwrap().rows.remove(0);
    assert!(matches!(session.import(&[row]).await, Err(Error::Frozen)));
    assert_eq!(
        found(&mut session, &slug).await,
        Resolved::Found(Box::new(link))
    );
    // An earlier id takes nothing back.
    mover.thaw(&[to(prefix, 2)], earlier).await.unwrap();
    assert_eq!(
        write(&mut session, &slug, WriteKind::Delete).await,
        Written::Frozen
    );
    mover.thaw(&[to(prefix, 2)], freeze).await.unwrap();
    // Nor does one that was given up come to life when it arrives late.
    for id in [earlier, freeze] {
        assert!(is_outdated(mover.freeze(&[to(prefix, 2)], id, LONG).await));
    }
    assert!(matches!(
        write(&mut session, &slug, WriteKind::Delete).await,
        Written::Link(_)
    ));
}

#[tokio::test]
async fn a_freeze_waits_for_writes_that_are_under_way() {
    let (here, _there) = sides().await;
    let mut mover = here.session().await;
    let options = PgConnectOptions::from_str(&here.url).unwrap();
    let mut writer = options.connect().await.unwrap();
    let mut writing = writer.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock_shared(22384, 1)")
        .execute(&mut *writing)
        .await
        .unwrap();
    let frozen = mover.freeze(&[to(ours(0), 2)], Uuid::now_v7(), LONG).await;
    assert!(matches!(frozen, Err(Refused::Store(_))), "{frozen:?}");
    writing.commit().await.unwrap();
    let mut mover = here.session().await;
    mover
        .freeze(&[to(ours(0), 2)], Uuid::now_v7(), LONG)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_release_needs_the_freeze_of_its_own_move_and_a_cache_that_has_all() {
    let (here, there) = sides().await;
    let (mut giver, mut taker) = (here.session().await, there.session().await);
    let (change, taker_id) = (to(ours(0), 2), shard("s1"));
    let slug = format!("{}000000", change.prefix);
    create(&mut giver, &alias(&slug)).await;
    update(&mut giver, &slug, "https://example.com/2").await;
    let freeze = Uuid::now_v7();
    assert!(is_outdated(
        giver.release(&[change], &taker_id, freeze).await
    ));
    // Not of another epoch, and not with one that it does not own.
    let not_ours = Prefix::all().find(|prefix| map_of(&["s0", "s1"]).owner_index(*prefix) == 1);
    for wrong in [
        vec![to(change.prefix, 3)],
        vec![change, to(not_ours.unwrap(), 2)],
    ] {
        assert!(is_outdated(giver.freeze(&wrong, freeze, LONG).await));
    }
    giver
        .freeze(&[change], freeze, Duration::from_millis(1))
        .await
        .unwrap();
    // It is over, whether somebody has taken it back or not.
    let held = "SELECT count(*) FROM prefix_owner WHERE frozen_until > clock_timestamp()";
    eventually("the freeze is over", async || here.count(held).await == 0).await;
    assert!(is_outdated(
        giver.release(&[change], &taker_id, freeze).await
    ));
    assert_eq!(
        write(&mut giver, &slug, WriteKind::Delete).await,
        Written::Frozen
    );
    assert_eq!(giver.thaw_overdue().await.unwrap(), 1);
    update(&mut giver, &slug, "https://example.com/3").await;
    assert!(is_outdated(giver.freeze(&[change], freeze, LONG).await));

    let freeze = Uuid::now_v7();
    giver.freeze(&[change], freeze, LONG).await.unwrap();
    assert_eq!(giver.thaw_overdue().await.unwrap(), 0);
    assert!(is_outdated(
        giver.release(&[change], &taker_id, Uuid::now_v7()).await
    ));
    let refused = giver.release(&[change], &taker_id, freeze).await;
    assert!(matches!(refused, Err(Refused::Unapplied)), "{refused:?}");
    apply(&here).await;
    compare(&mut giver, &mut taker, change).await.unwrap();
    // As often as its answer is lost.
    for _ in 0..2 {
        giver.release(&[change], &taker_id, freeze).await.unwrap();
    }
    assert!(is_outdated(giver.freeze(&[change], freeze, LONG).await));
    // It is told by one number that owners have changed.
    let poll = giver
        .poll(&waypost_shard_node::store::Cursor::starting_at(0), 1)
        .await;
    assert_eq!(poll.unwrap().ownership, 1);
}

#[tokio::test]
async fn rows_are_let_in_under_the_last_id_and_until_the_prefix_is_taken() {
    let (here, there) = sides().await;
    let (mut giver, mut taker) = (here.session().await, there.session().await);
    let change = to(ours(0), 2);
    let slug = format!("{}000000", change.prefix);
    create(&mut giver, &minted(&slug)).await;
    let (early, late, giver_id) = (Uuid::now_v7(), Uuid::now_v7(), shard("s0"));
    assert!(is_outdated(
        copy(&mut giver, &mut taker, change.prefix, early).await
    ));
    for id in [early, late] {
        taker.admit(&[change], &giver_id, id, false).await.unwrap();
    }
    assert!(is_outdated(
        copy(&mut giver, &mut taker, change.prefix, early).await
    ));
    assert_eq!(
        copy(&mut giver, &mut taker, change.prefix, late)
            .await
            .unwrap(),
        1
    );
    // Copies are nobody's links.
    assert!(matches!(found(&mut taker, &slug).await, Resolved::Moved(_)));
    assert!(taker.export(None, 10).await.unwrap().rows.is_empty());
    assert!(taker.oldest(10).await.unwrap().is_empty());
    assert_eq!(taker.coming().await.unwrap(), [(change, giver_id.clone())]);
    // Whoever owns a prefix lets nobody's rows in.
    assert!(is_outdated(
        giver.admit(&[change], &shard("s1"), late, false).await
    ));
    assert_eq!(taker.take(&[to(change.prefix, 3)]).await.unwrap(), 0);
    assert_eq!(taker.take(&[change]).await.unwrap(), 1);
    let stretch = Stretch::whole(change.prefix, Kind::Links);
    assert!(is_outdated(taker.put(&stretch, late, &[]).await));
    assert!(is_outdated(
        taker
            .admit(&[to(change.prefix, 3)], &giver_id, late, false)
            .await
    ));
}

#[tokio::test]
async fn the_prefix_of_a_claim_is_that_of_its_slug() {
    let (here, _there) = sides().await;
    let mut ids = Vec::new();
    let mut expected = Vec::new();
    for n in 0..200_u128 {
        let id = n
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_be_bytes();
        let source = Source { id, digest: None };
        expected.push(source.slug(0).prefix().to_string());
        ids.push(id.to_vec());
    }
    let options = PgConnectOptions::from_str(&here.url).unwrap();
    let mut connection = options.connect().await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT prefix_of_source(k.id) FROM unnest($1::bytea[]) WITH ORDINALITY AS k(id, at)
         ORDER BY k.at",
    )
    .bind(ids)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(found, expected);
}

/// A run of the mover, one step at a time. It may stand still between any two, and then go
/// on with what it knew.
#[derive(Default)]
struct Run {
    step: usize,
    freeze: Uuid,
    copy: Uuid,
    /// Rows that it has read and not yet written.
    read: Option<(Stretch, Vec<String>)>,
    is_clean: bool,
}

impl Run {
    /// Does the next step; true when it is through.
    async fn go_on(
        &mut self,
        giver: &mut PostgresSession,
        taker: &mut PostgresSession,
        change: OwnerChange,
    ) -> bool {
        let all = Stretch::whole(change.prefix, Kind::Links);
        let (giver_id, taker_id) = (shard("s0"), shard("s1"));
        let outcome = match self.step {
            0 => {
                self.freeze = Uuid::now_v7();
                giver.freeze(&[change], self.freeze, LONG).await
            }
            1 => {
                (self.copy, self.is_clean) = (Uuid::now_v7(), true);
                taker.admit(&[change], &giver_id, self.copy, true).await
            }
            2 => {
                let page = giver.page(&all, Some(1_000)).await.unwrap();
                let theirs = taker.page(&all, None).await.unwrap();
                let differs = (page.rows, page.sum) != (theirs.rows, theirs.sum);
                self.read = differs.then_some((all, page.json));
                Ok(())
            }
            3 => match self.read.take() {
                Some((stretch, rows)) => {
                    self.is_clean = false;
                    taker.put(&stretch, self.copy, &rows).await
                }
                None => Ok(()),
            },
            4 if !self.is_clean => {
                self.step = 1;
                return false;
            }
            4 => giver.release(&[change], &taker_id, self.freeze).await,
            _ => return true,
        };
        match outcome {
            Ok(()) => self.step += 1,
            // It begins anew, as after a crash.
            Err(Refused::Outdated | Refused::Unapplied) => *self = Self::default(),
            Err(Refused::Store(error)) => panic!("{error}"),
        }
        self.step > 4
    }
}

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test]
async fn movers_that_interleave_with_writers_at_random_make_no_two_owners_and_lose_no_write() {
    let (here, there) = sides().await;
    let mut released = 0;
    for seed in 1..=30 {
        let (mut giver, mut taker) = (here.session().await, there.session().await);
        let change = to(ours(seed), 2);
        let mut dice = Dice(seed as u64 * 0x9e37_79b9);
        let mut runs = [Run::default(), Run::default(), Run::default()];
        let mut acknowledged: BTreeMap<String, Link> = BTreeMap::new();
        for step in 0..150 {
            let slug = format!("{}{:06}", change.prefix, dice.roll(8));
            match dice.roll(10) {
                // A writer, who is sent from one to the other.
                0..=2 => {
                    let mut accepted = 0;
                    for session in [&mut giver, &mut taker] {
                        let link = match acknowledged.get(&slug) {
                            None => match session
                                .create_batch(&[alias(&slug)])
                                .await
                                .unwrap()
                                .remove(0)
                            {
                                Created::Stored { link, .. } => Some(*link),
                                Created::Moved(_) | Created::Frozen => None,
                                other => panic!("seed {seed}, step {step}: {other:?}"),
                            },
                            Some(_) => {
                                let edit = Write {
                                    key: key(&slug),
                                    writer: acme(),
                                    if_version: None,
                                    change_id: ChangeId(Uuid::now_v7()),
                                    kind: to_url(&format!("https://example.com/{seed}/{step}")),
                                };
                                match session.write(&edit).await.unwrap() {
                                    Written::Link(link) => Some(*link),
                                    Written::Moved(_) | Written::Frozen => None,
                                    other => panic!("seed {seed}, step {step}: {other:?}"),
                                }
                            }
                        };
                        if let Some(link) = link {
                            accepted += 1;
                            let before = acknowledged.insert(slug.clone(), link.clone());
                            assert!(before.is_none_or(|before| before.version < link.version));
                        }
                    }
                    assert!(accepted < 2, "seed {seed}, step {step}: two owners");
                }
                3 => apply(&here).await,
                // As if the time of every freeze were over.
                4 if dice.roll(4) == 0 => {
                    here.execute(
                        "UPDATE prefix_owner SET frozen_until = clock_timestamp()
                         WHERE frozen_until IS NOT NULL",
                    )
                    .await;
                    giver.thaw_overdue().await.unwrap();
                }
                // The taker looks whether it has been given anything.
                5 => settle(&mut giver, &mut taker, change).await,
                roll => {
                    let run = &mut runs[(roll % 3) as usize];
                    if run.go_on(&mut giver, &mut taker, change).await {
                        *run = Run::default();
                    }
                }
            }
        }
        let owner = giver
            .holdings(&[change.prefix], false)
            .await
            .unwrap()
            .remove(0);
        released += u32::from(owner.owner == shard("s1"));
        if owner.owner == shard("s0") {
            apply(&here).await;
            hand_over(&mut giver, &mut taker, change).await;
        } else {
            settle(&mut giver, &mut taker, change).await;
        }
        for (slug, link) in acknowledged {
            let expected = Resolved::Found(Box::new(link));
            assert_eq!(
                found(&mut taker, &slug).await,
                expected,
                "seed {seed}: {slug}"
            );
        }
    }
    assert!(released > 5, "only {released} were moved at random");
}

/// Takes the prefix if the giver says that it has released it.
async fn settle(giver: &mut PostgresSession, taker: &mut PostgresSession, change: OwnerChange) {
    let held = giver
        .holdings(&[change.prefix], false)
        .await
        .unwrap()
        .remove(0);
    if held.owner == shard("s1") && held.epoch == change.epoch {
        taker.take(&[change]).await.unwrap();
    }
}
