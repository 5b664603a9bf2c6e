//! What days hold: by hour and dimension, of a link and of a tenant.

use std::sync::Arc;
use std::time::Duration;

use tonic::Request;
use waypost_analytics_consumer::Analytics;
use waypost_analytics_consumer::store::{Keep, RollupStore};
use waypost_proto::analytics::analytics_service_server::AnalyticsService as _;
use waypost_proto::analytics::{
    Breakdown, Dimension, Interval, LinkStatsRequest, LinkStatsResponse, Range, TenantStatsRequest,
    TenantStatsResponse,
};
use waypost_proto::click::Click;

use crate::rollups::{Database, asked, batch, click, link, portion, span, suite, suites};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) \
                      AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 \
                      Safari/604.1";

suites!(
    people_are_told_apart_by_all_dimensions_and_programs_are_not,
    ten_thousand_referrers_take_one_row_and_none_is_lost,
    visitors_are_unique_within_a_day_and_added_up_over_days,
    late_clicks_land_in_their_own_hour_and_day,
    ranges_are_widened_to_hours_and_bad_ones_refused,
    a_tenant_has_totals_and_its_most_followed_links,
    counted_up_to_is_where_the_slowest_partition_is,
    forgotten_producers_are_never_counted_again_and_live_ones_never_forgotten,
    old_dead_letters_go,
    a_row_that_cannot_be_read_costs_its_own_details_alone,
    a_quarter_of_a_busy_link_is_answered_within_50_ms,
);

fn by(link_id: u8, range: Option<(i64, i64)>, interval: Interval) -> LinkStatsRequest {
    LinkStatsRequest {
        link_id: link(link_id).as_bytes().to_vec(),
        range: range.map(|(from_ms, to_ms)| Range { from_ms, to_ms }),
        interval: interval.into(),
        ..LinkStatsRequest::default()
    }
}

fn with(dimensions: &[Dimension], request: LinkStatsRequest) -> LinkStatsRequest {
    let by = dimensions.iter().map(|dimension| (*dimension).into());
    LinkStatsRequest {
        by: by.collect(),
        ..request
    }
}

fn values(breakdown: &Breakdown) -> Vec<(&str, u64)> {
    let values = breakdown.values.iter();
    values.map(|v| (v.value.as_str(), v.clicks)).collect()
}

fn series(answer: &LinkStatsResponse) -> Vec<(i64, u64, u64)> {
    let points = answer.series.iter();
    points.map(|p| (p.start_ms, p.clicks, p.bots)).collect()
}

async fn tenant<S: RollupStore + Clone>(
    store: &S,
    request: TenantStatsRequest,
) -> TenantStatsResponse {
    let service = Analytics::new(Arc::new(store.clone()), crate::metrics());
    let answer = service.tenant_stats(Request::new(request)).await;
    answer.unwrap().into_inner()
}

async fn people_are_told_apart_by_all_dimensions_and_programs_are_not(database: &impl Database) {
    let store = database.open().await;
    let visit = |user_agent, referrer: &str, language: &str, country: &str| Click {
        referrer_host: referrer.to_owned(),
        language: language.to_owned(),
        country: country.to_owned(),
        ..click(link(1), 5, user_agent)
    };
    let clicks = [
        visit(FIREFOX, "t.co", "de-CH", "CH"),
        visit(IPHONE, "t.co", "DE", "DE"),
        visit(IPHONE, "", "en-US", "US"),
        visit("curl/8.5.0", "bot.example", "xx", "XX"),
        Click {
            prefetch: true,
            ..visit(FIREFOX, "ahead.example", "yy", "YY")
        },
    ];
    // In two transactions, so that what is stored is added to.
    for (sequence, clicks) in (0..).zip(clicks.chunks(2)) {
        let portion = portion(None, &[batch(1, 0, sequence, clicks.to_vec())]);
        store.apply(&portion).await.unwrap();
    }
    let dimensions = [
        Dimension::Referrer,
        Dimension::Country,
        Dimension::Device,
        Dimension::Browser,
        Dimension::Os,
        Dimension::Language,
    ];
    let answer = asked(&store, with(&dimensions, by(1, None, Interval::Day))).await;
    assert_eq!((answer.clicks, answer.bots), (5, 2));
    assert_eq!(series(&answer), [(0, 5, 2)]);
    let told: Vec<Vec<(&str, u64)>> = answer.breakdowns.iter().map(values).collect();
    assert_eq!(told[0], [("t.co", 2), ("", 1)]);
    assert_eq!(told[1], [("CH", 1), ("DE", 1), ("US", 1)]);
    assert_eq!(told[2], [("mobile", 2), ("desktop", 1)]);
    assert_eq!(told[3], [("Safari", 2), ("Firefox", 1)]);
    assert_eq!(told[4], [("iOS", 2), ("Linux", 1)]);
    assert_eq!(told[5], [("de", 2), ("en", 1)]);
    assert!(answer.breakdowns.iter().all(|b| b.other == 0));
    let request = with(&dimensions[..1], by(1, None, Interval::Day));
    let first = asked(&store, LinkStatsRequest { top: 1, ..request }).await;
    assert_eq!(values(&first.breakdowns[0]), [("t.co", 2)]);
    assert_eq!(first.breakdowns[0].other, 1);
}

async fn ten_thousand_referrers_take_one_row_and_none_is_lost(database: &impl Database) {
    let store = database.open().await;
    let from = |host: String| Click {
        referrer_host: host,
        ..click(link(1), 5, FIREFOX)
    };
    let mut rows = 0;
    for sequence in 0..20 {
        let distinct = (0..500).map(|n| from(format!("host-{}.example", sequence * 500 + n)));
        let mut clicks: Vec<Click> = distinct.collect();
        clicks.extend(vec![from("large.example".to_owned()); 100]);
        let portion = portion(None, &[batch(1, 0, sequence, clicks)]);
        let applied = store.apply(&portion).await.unwrap();
        // The link's and its tenant's.
        rows += applied.rows;
        assert_eq!(applied.rows, 2);
    }
    assert_eq!(rows, 40);
    let request = with(&[Dimension::Referrer], by(1, None, Interval::Unspecified));
    let answer = asked(&store, request).await;
    assert_eq!(answer.clicks, 12_000);
    let referrers = &answer.breakdowns[0];
    assert!(referrers.values.len() <= 50);
    assert_eq!(values(referrers)[0], ("large.example", 2_000));
    let told: u64 = referrers.values.iter().map(|value| value.clicks).sum();
    assert_eq!(told + referrers.other, 12_000);
    let days = store
        .link_days(link(1), 0..1, 0..24, true)
        .await
        .unwrap()
        .days;
    assert_eq!(days.len(), 1);
    assert!(days[0].counts.len() < 6_000, "{}", days[0].counts.len());
}

async fn visitors_are_unique_within_a_day_and_added_up_over_days(database: &impl Database) {
    let store = database.open().await;
    let by_visitor = |visitor, time_ms, user_agent| Click {
        visitor,
        ..click(link(1), time_ms, user_agent)
    };
    let mut batches = Vec::new();
    for (sequence, day) in [(0, 0), (1, 0), (2, 1)] {
        let mut clicks: Vec<Click> = (0..300)
            .map(|n| by_visitor(n % 100, day * DAY_MS + 7, FIREFOX))
            .collect();
        clicks.push(by_visitor(1_000, day * DAY_MS, "curl/8.5.0"));
        batches.push(batch(1, 0, sequence, clicks));
    }
    for batch in batches {
        store.apply(&portion(None, &[batch])).await.unwrap();
    }
    // Whoever comes by another partition is no other.
    let elsewhere = (50..150).map(|n| by_visitor(n, DAY_MS, FIREFOX)).collect();
    let elsewhere = batch(1, 1, 0, elsewhere);
    store.apply(&portion(None, &[elsewhere])).await.unwrap();
    let answer = asked(&store, by(1, None, Interval::Day)).await;
    let visitors: Vec<Option<u64>> = answer.series.iter().map(|point| point.visitors).collect();
    let near = |value: Option<u64>, expected: u64| value.unwrap().abs_diff(expected) <= 2;
    assert!(
        near(visitors[0], 100) && near(visitors[1], 150),
        "{visitors:?}"
    );
    assert_eq!(
        answer.visitor_days,
        visitors[0].unwrap() + visitors[1].unwrap()
    );
}

async fn late_clicks_land_in_their_own_hour_and_day(database: &impl Database) {
    let store = database.open().await;
    let at = |sequence, times: &[i64]| {
        let clicks = times.iter().map(|time| click(link(1), *time, FIREFOX));
        portion(None, &[batch(1, 0, sequence, clicks.collect())])
    };
    store
        .apply(&at(0, &[5 * DAY_MS + 3 * HOUR_MS]))
        .await
        .unwrap();
    // Hours, days and a month late, and on the edges of an hour and a day.
    let late = [
        5 * DAY_MS + HOUR_MS,
        4 * DAY_MS - 1,
        4 * DAY_MS,
        5 * DAY_MS + HOUR_MS - 1,
    ];
    store.apply(&at(1, &late)).await.unwrap();
    let days = asked(&store, by(1, None, Interval::Day)).await;
    let expected = [(3 * DAY_MS, 1, 0), (4 * DAY_MS, 1, 0), (5 * DAY_MS, 3, 0)];
    assert_eq!(series(&days), expected);
    let hours = asked(
        &store,
        by(1, Some((4 * DAY_MS, 6 * DAY_MS)), Interval::Hour),
    )
    .await;
    let expected = [
        (4 * DAY_MS, 1, 0),
        (5 * DAY_MS, 1, 0),
        (5 * DAY_MS + HOUR_MS, 1, 0),
        (5 * DAY_MS + 3 * HOUR_MS, 1, 0),
    ];
    assert_eq!(series(&hours), expected);
    assert_eq!(hours.clicks, 4);
}

async fn ranges_are_widened_to_hours_and_bad_ones_refused(database: &impl Database) {
    let store = database.open().await;
    let times = [0, HOUR_MS, 2 * HOUR_MS, DAY_MS, DAY_MS + HOUR_MS];
    let clicks = times.map(|time| click(link(1), time, FIREFOX)).to_vec();
    store
        .apply(&portion(None, &[batch(1, 0, 0, clicks)]))
        .await
        .unwrap();
    let range = Some((HOUR_MS + 5, DAY_MS + 5));
    let part = asked(&store, with(&[Dimension::Os], by(1, range, Interval::Day))).await;
    assert_eq!(series(&part), [(0, 2, 0), (DAY_MS, 1, 0)]);
    // Dimensions are of whole days, and the answer says of which.
    assert_eq!(values(&part.breakdowns[0]), [("Linux", 5)]);
    let days = part.days.unwrap();
    assert_eq!((days.from_ms, days.to_ms), (0, 2 * DAY_MS));
    let service = Analytics::new(Arc::new(store.clone()), crate::metrics());
    for bad in [
        by(1, Some((5, 5)), Interval::Day),
        by(1, Some((0, 4_001 * DAY_MS)), Interval::Day),
        with(&[Dimension::Os, Dimension::Os], by(1, None, Interval::Day)),
        with(&[Dimension::Unspecified], by(1, None, Interval::Day)),
        LinkStatsRequest {
            interval: 9,
            ..by(1, None, Interval::Day)
        },
        LinkStatsRequest {
            link_id: vec![1],
            ..by(1, None, Interval::Day)
        },
    ] {
        let refused = service.link_stats(Request::new(bad)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

async fn a_tenant_has_totals_and_its_most_followed_links(database: &impl Database) {
    let store = database.open().await;
    let of = |tenant: &str, n: u8, times: usize| {
        let one = Click {
            tenant: tenant.to_owned(),
            slug: format!("slug-{n}"),
            ..click(link(n), i64::from(n % 2) * DAY_MS, FIREFOX)
        };
        vec![one; times]
    };
    // Their links are on different partitions.
    for (partition, n) in (0..).zip(1..=10) {
        let mut clicks = of("acme", n, usize::from(n));
        clicks.extend(of("other", n + 100, 1));
        clicks.push(Click {
            user_agent: "curl/8.5.0".to_owned(),
            ..of("acme", n, 1)[0].clone()
        });
        let portion = portion(None, &[batch(1, partition, 0, clicks)]);
        store.apply(&portion).await.unwrap();
    }
    let request = TenantStatsRequest {
        tenant: "acme".to_owned(),
        interval: Interval::Day.into(),
        top: 3,
        ..TenantStatsRequest::default()
    };
    let answer = tenant(&store, request.clone()).await;
    assert_eq!((answer.clicks, answer.bots), (65, 10));
    let days: Vec<(i64, u64, u64)> = answer
        .series
        .iter()
        .map(|p| (p.start_ms, p.clicks, p.bots))
        .collect();
    assert_eq!(days, [(0, 35, 5), (DAY_MS, 30, 5)]);
    let links: Vec<(&str, u64)> = answer.links.iter().map(|l| (&*l.slug, l.clicks)).collect();
    assert_eq!(links, [("slug-10", 11), ("slug-9", 10), ("slug-8", 9)]);
    assert_eq!(answer.links[0].link_id, link(10).as_bytes());
    assert_eq!(answer.other, 35);
    let range = Some(Range {
        from_ms: DAY_MS,
        to_ms: 2 * DAY_MS,
    });
    let second = tenant(
        &store,
        TenantStatsRequest {
            range,
            ..request.clone()
        },
    )
    .await;
    assert_eq!(
        (second.clicks, second.links[0].slug.as_str()),
        (30, "slug-9")
    );
    let nobody = TenantStatsRequest {
        tenant: "nobody".to_owned(),
        ..request
    };
    assert_eq!(tenant(&store, nobody).await.clicks, 0);
}

async fn counted_up_to_is_where_the_slowest_partition_is(database: &impl Database) {
    let store = database.open().await;
    assert_eq!(store.counted_up_to().await.unwrap(), None);
    let at = |partition, sequence, time| {
        let clicks = vec![click(link(1), time, FIREFOX)];
        portion(None, &[batch(1, partition, sequence, clicks)])
    };
    store.apply(&at(0, 0, 1_000)).await.unwrap();
    store.apply(&at(1, 0, 5_000)).await.unwrap();
    assert_eq!(store.counted_up_to().await.unwrap(), Some(1_000));
    // Nobody follows the links of this partition any more, and all of it is counted.
    store.caught_up(&[0, 2], 9_000).await.unwrap();
    assert_eq!(store.counted_up_to().await.unwrap(), Some(5_000));
    // It does not go back, and a gateway whose clock is ahead does not move it there.
    store.apply(&at(1, 1, 2_000)).await.unwrap();
    store.caught_up(&[0], 3_000).await.unwrap();
    assert_eq!(store.counted_up_to().await.unwrap(), Some(5_000));
    let year_3000 = 32_503_680_000_000;
    for partition in 0..3 {
        store.apply(&at(partition, 2, year_3000)).await.unwrap();
    }
    assert!(store.counted_up_to().await.unwrap().unwrap() < year_3000);
}

async fn forgotten_producers_are_never_counted_again_and_live_ones_never_forgotten(
    database: &impl Database,
) {
    let store = database.open().await;
    let one = |boot, partition, sequence| {
        let clicks = vec![click(link(1), 5, FIREFOX)];
        portion(None, &[batch(boot, partition, sequence, clicks)])
    };
    for boot in 1..=3 {
        store.apply(&one(boot, 0, 0)).await.unwrap();
    }
    // Old enough are all of them, but the last may still run.
    let superseded = Keep {
        producers: Duration::from_secs(90),
        ..Keep::DEFAULT
    };
    database.age_everything_by(Duration::from_secs(100)).await;
    store.prune(superseded).await.unwrap();
    let late = store.apply(&one(2, 1, 0)).await.unwrap();
    assert_eq!(
        (late.clicks, late.too_late),
        (0, 1),
        "it may have been counted"
    );
    for boot in [1, 2] {
        let again = store.apply(&one(boot, 0, 0)).await.unwrap();
        assert_eq!((again.clicks, again.too_late), (0, 1));
    }
    let live = store.apply(&one(3, 1, 0)).await.unwrap();
    assert_eq!(
        (live.clicks, live.too_late),
        (1, 0),
        "a partition it had nothing for yet"
    );
    let known = store.apply(&one(3, 0, 0)).await.unwrap();
    assert_eq!((known.clicks, known.duplicates), (0, 1));
    // Heard of on one partition, it is alive on all.
    database.age_everything_by(Duration::from_secs(400)).await;
    store.apply(&one(3, 1, 1)).await.unwrap();
    store.prune(superseded).await.unwrap();
    assert_eq!(store.apply(&one(3, 0, 0)).await.unwrap().duplicates, 1);
    database.age_everything_by(Duration::from_secs(400)).await;
    store.prune(superseded).await.unwrap();
    assert_eq!(store.apply(&one(3, 0, 0)).await.unwrap().too_late, 1);
    assert_eq!(
        store.apply(&one(4, 0, 0)).await.unwrap().clicks,
        1,
        "a new start"
    );
}

async fn old_dead_letters_go(database: &impl Database) {
    use waypost_analytics_consumer::store::{DeadLetter, Portion};
    let store = database.open().await;
    let letter = |offset| Portion {
        span: Some(span(0, (offset > 0).then_some(offset), offset + 1)),
        dead: vec![DeadLetter {
            offset,
            reason: "the message is no batch of clicks".to_owned(),
            payload: vec![7; 100_000],
        }],
        ..Portion::default()
    };
    store.apply(&letter(0)).await.unwrap();
    database.age_everything_by(Duration::from_hours(24)).await;
    store.apply(&letter(1)).await.unwrap();
    let keep = Keep {
        dead_letters: Duration::from_hours(1),
        ..Keep::DEFAULT
    };
    store.prune(keep).await.unwrap();
    let kept = "SELECT count(*), max(length(payload)) FROM dead_letter WHERE message_offset = 1";
    assert_eq!(database.two_numbers(kept).await, (1, 64 << 10));
    let all = "SELECT count(*), 0 FROM dead_letter";
    assert_eq!(database.two_numbers(all).await.0, 1);
}

async fn a_row_that_cannot_be_read_costs_its_own_details_alone(database: &impl Database) {
    let store = database.open().await;
    let clicks = |sequence| {
        let clicks = vec![click(link(1), 5, FIREFOX), click(link(2), 5, FIREFOX)];
        portion(None, &[batch(1, 0, sequence, clicks)])
    };
    store.apply(&clicks(0)).await.unwrap();
    database.damage_counts_of(link(1)).await;
    let request = || with(&[Dimension::Os], by(1, None, Interval::Day));
    let damaged = asked(&store, request()).await;
    assert_eq!((damaged.clicks, damaged.breakdowns[0].values.len()), (1, 0));
    let applied = store.apply(&clicks(1)).await.unwrap();
    assert_eq!((applied.clicks, applied.unreadable), (2, 1));
    let mended = asked(&store, request()).await;
    assert_eq!(
        (mended.clicks, values(&mended.breakdowns[0])),
        (2, vec![("Linux", 1)])
    );
    let neighbour = asked(&store, with(&[Dimension::Os], by(2, None, Interval::Day))).await;
    assert_eq!(values(&neighbour.breakdowns[0]), [("Linux", 2)]);
}

/// 10^8 clicks in 90 days, and each day as large as a day can be: all hours, more values
/// than there is room for, and a full sketch.
async fn a_quarter_of_a_busy_link_is_answered_within_50_ms(database: &impl Database) {
    const ASKED: usize = 100;
    const ROUNDS: usize = 3;
    let store = database.open().await;
    let clicks = (0..20_000_u64).map(|n| Click {
        referrer_host: format!("a-host-with-a-long-name-{}.example", n % 300),
        language: format!("l{}", n % 150),
        country: String::from_utf8(vec![b'A' + (n % 26) as u8, b'A' + (n / 26 % 26) as u8])
            .unwrap(),
        visitor: n,
        ..click(link(1), (n % 24) as i64 * HOUR_MS, FIREFOX)
    });
    let clicks = batch(1, 0, 0, clicks.collect());
    store.apply(&portion(None, &[clicks])).await.unwrap();
    database.repeat_day_of(link(1), 90, 100_000_000 / 90).await;
    let dimensions = [
        Dimension::Referrer,
        Dimension::Country,
        Dimension::Device,
        Dimension::Browser,
        Dimension::Os,
        Dimension::Language,
    ];
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let request = with(&dimensions, by(1, Some((0, 90 * DAY_MS)), Interval::Day));
            let asked_at = std::time::Instant::now();
            let answer = asked(&store, request).await;
            times.push(asked_at.elapsed());
            assert_eq!(
                (answer.clicks, answer.series.len()),
                (100_000_000 / 90 * 90, 90)
            );
            assert_eq!(answer.breakdowns[0].values.len(), 50);
        }
        times.sort_unstable();
        seen.push(times[ASKED * 99 / 100]);
        // Others are at work on the machine of a test; one quiet round will do.
        if seen.last() <= Some(&Duration::from_millis(50)) {
            return;
        }
    }
    panic!("p99 of each round: {seen:?}");
}
