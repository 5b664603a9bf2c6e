//! Counting without a log between, as the all-in-one process does it.

use tonic::Request;
use waypost_analytics_consumer::{ApplyError, open_sqlite};
use waypost_proto::analytics::LinkStatsRequest;
use waypost_proto::analytics::analytics_service_server::AnalyticsService as _;
use waypost_runtime::metrics::Registry;

use crate::rollups::{batch, click, link};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_are_counted_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.db");
    let stats = || LinkStatsRequest {
        link_id: link(1).as_bytes().to_vec(),
        ..LinkStatsRequest::default()
    };
    {
        let analytics = open_sqlite(&file, &Registry::new()).await.unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..200 {
            let analytics = analytics.clone();
            // Each comes twice, as from a sender that saw no answer.
            let batch = batch(
                1,
                n % 12,
                u64::from(n / 24),
                vec![click(link(1), 5, "x"); 2],
            );
            callers.spawn(async move { analytics.apply(batch).await });
        }
        assert!(callers.join_all().await.iter().all(Result::is_ok));
    }
    let analytics = open_sqlite(&file, &Registry::new()).await.unwrap();
    let answer = analytics.service().link_stats(Request::new(stats())).await;
    let answer = answer.unwrap().into_inner();
    let distinct: std::collections::HashSet<(u32, u32)> =
        (0..200).map(|n| (n % 12, n / 24)).collect();
    assert_eq!(answer.clicks, 2 * distinct.len() as u64);
    assert_eq!(answer.counted_up_to_ms, 5);
}

#[tokio::test]
async fn a_batch_that_cannot_be_stored_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.db");
    let analytics = open_sqlite(&file, &Registry::new()).await.unwrap();
    let mut newer = batch(1, 0, 0, Vec::new());
    newer.format = 2;
    let foreign = batch(1, 12, 0, Vec::new());
    let mut nameless = click(link(1), 5, "x");
    nameless.link_id.pop();
    let nameless = batch(1, 0, 0, vec![nameless]);
    for bad in [newer, foreign, nameless] {
        let refused = analytics.apply(bad).await;
        assert!(matches!(refused, Err(ApplyError::Invalid(_))));
    }
}
