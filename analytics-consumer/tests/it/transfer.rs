//! What another instance has counted, beside what is counted here.

use std::sync::Arc;

use tonic::{Code, Request};
use waypost_analytics_consumer::Analytics;
use waypost_analytics_consumer::store::RollupStore;
use waypost_proto::analytics::analytics_service_server::AnalyticsService as _;
use waypost_proto::analytics::rollup::Row;
use waypost_proto::analytics::{
    Dimension, LinkDay, LinkHour, LinkStatsRequest, LinkStatsResponse, Rollup, Rollups, TenantDay,
    TenantStatsRequest,
};

use crate::rollups::{Database, asked, batch, click, link, portion, suite, suites};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

suites!(
    what_another_instance_counted_is_added_once_however_often_it_comes,
    rows_that_were_never_counted_are_refused,
);

fn rollups(rows: &[Row]) -> Rollups {
    let rollup = |row: &Row| Rollup {
        row: Some(row.clone()),
    };
    Rollups {
        rollups: rows.iter().map(rollup).collect(),
    }
}

fn day(n: u8, day: i32) -> LinkDay {
    LinkDay {
        link_id: link(n).as_bytes().to_vec(),
        day,
        tenant: "acme".to_owned(),
        ..LinkDay::default()
    }
}

async fn stats<S: RollupStore + Clone>(store: &S, n: u8) -> LinkStatsResponse {
    let request = LinkStatsRequest {
        link_id: link(n).as_bytes().to_vec(),
        by: vec![Dimension::Browser.into()],
        ..LinkStatsRequest::default()
    };
    asked(store, request).await
}

async fn what_another_instance_counted_is_added_once_however_often_it_comes(
    database: &impl Database,
) {
    let store = database.open().await;
    let service = Analytics::new(Arc::new(store.clone()), crate::metrics());
    let clicks = vec![click(link(1), 5, FIREFOX), click(link(1), 6, "curl/8.5.0")];
    let counted = portion(None, &[batch(1, 0, 0, clicks)]);
    store.apply(&counted).await.unwrap();
    let here = stats(&store, 1).await;
    assert_eq!((here.clicks, here.bots, here.visitor_days), (2, 1, 1));

    // Another instance has counted the very same, of this link and of one more.
    let keys = [
        Row::LinkDay(day(1, 0)),
        Row::TenantDay(TenantDay {
            tenant: "acme".to_owned(),
            ..TenantDay::default()
        }),
    ];
    let rows = store.stored(&keys).await.unwrap().into_iter();
    let mut rows: Vec<Row> = rows.map(Option::unwrap).collect();
    rows.push(Row::LinkHour(LinkHour {
        link_id: link(2).as_bytes().to_vec(),
        hour: 3,
        tenant: "acme".to_owned(),
        clicks: 7,
        bots: 2,
    }));
    for _ in 0..2 {
        let request = Request::new(rollups(&rows));
        service.import_rollups(request).await.unwrap();
        let all = stats(&store, 1).await;
        assert_eq!((all.clicks, all.bots, all.visitor_days), (4, 2, 1));
        assert_eq!(all.breakdowns[0].values[0].clicks, 2);
        let older = stats(&store, 2).await;
        assert_eq!((older.clicks, older.bots), (7, 2));
        let request = TenantStatsRequest {
            tenant: "acme".to_owned(),
            ..TenantStatsRequest::default()
        };
        let tenant = service.tenant_stats(Request::new(request)).await.unwrap();
        assert_eq!(tenant.into_inner().clicks, 2 + 2 + 7);
    }

    // What is counted here meanwhile is added to, and what comes later takes the place.
    let more = portion(None, &[batch(1, 0, 1, vec![click(link(1), 7, FIREFOX)])]);
    store.apply(&more).await.unwrap();
    let Row::LinkDay(counted) = &mut rows[0] else {
        unreachable!("it was asked for first")
    };
    counted.clicks = 12;
    let request = Request::new(rollups(&rows));
    service.import_rollups(request).await.unwrap();
    assert_eq!(stats(&store, 1).await.clicks, 3 + 12);

    let missing = Row::LinkDay(day(9, 0));
    let mut asked = rows.clone();
    asked.push(missing);
    let read = service.read_rollups(Request::new(rollups(&asked))).await;
    let read = read.unwrap().into_inner().rollups;
    let read: Vec<Option<Row>> = read.into_iter().map(|rollup| rollup.row).collect();
    let mut expected: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    expected.push(None);
    assert_eq!(read, expected);
}

async fn rows_that_were_never_counted_are_refused(database: &impl Database) {
    let store = database.open().await;
    let service = Analytics::new(Arc::new(store.clone()), crate::metrics());
    let short = LinkDay {
        link_id: vec![1; 15],
        ..day(1, 0)
    };
    let negative = LinkDay {
        clicks: -1,
        ..day(1, 0)
    };
    // Where such rows stand: it would be another's.
    let taken_over = LinkDay {
        partition: 10_000,
        ..day(1, 0)
    };
    for bad in [short, negative, taken_over] {
        let rows = rollups(&[Row::LinkDay(day(1, 0)), Row::LinkDay(bad)]);
        let refused = service.import_rollups(Request::new(rows)).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    let many = vec![Row::LinkDay(day(1, 0)); 257];
    let refused = service.import_rollups(Request::new(rollups(&many))).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let read = service
        .read_rollups(Request::new(rollups(&[Row::LinkDay(day(1, 0))])))
        .await;
    assert_eq!(
        read.unwrap().into_inner().rollups[0].row,
        None,
        "nothing came"
    );
}
