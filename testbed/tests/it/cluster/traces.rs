//! What a collector is told of requests, by the processes of a cluster.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use waypost_domain::click::partition;
use waypost_testbed::Port;
use waypost_testbed::cluster::{Builder, Link};
use waypost_testbed::otlp::Collector;
use waypost_testbed::proxy::Mode;
use waypost_testbed::service::Kind;

use super::alone::logs::assert_quiet;
use super::inside::Inside;
use super::outages::metric;
use super::{User, small};
use crate::patience::{wait_for, wait_until};

/// So that of requests that do not ask for it none is traced.
const NEVER: &str = "4294967295";

const SENT: &str = "waypost_trace_spans_total{result=\"sent\"}";
const FAILED: &str = "waypost_trace_spans_total{result=\"failed\"}";
const DROPPED: &str = "waypost_trace_spans_total{result=\"queue_full\"}";

/// A caller's span.
const CALLER: &str = "00f067aa0ba902b7";

/// A cluster whose processes all send traces to one collector, soon.
fn traced(cluster: Builder, url: &str, one_in: &str) -> Builder {
    Kind::ALL.into_iter().fold(cluster, |cluster, kind| {
        cluster
            .set(kind, "WAYPOST_OTLP_ENDPOINT", url)
            .set(kind, "WAYPOST_TRACE_ONE_IN", one_in)
            .set(kind, "OTEL_BSP_SCHEDULE_DELAY", "50")
    })
}

/// The header of a caller that has its request traced.
fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CALLER}-01")
}

/// Follows a slug as a part of a trace.
fn follow(user: &User, slug: &str, trace: &str) -> u16 {
    let request = user.request("GET", &format!("/{slug}?secret=query"), None);
    let request = request.header("user-agent", "secret agent");
    let request = request.header("traceparent", traceparent(trace));
    request.send().unwrap().status().as_u16()
}

#[track_caller]
fn expect_tree(collector: &Collector, trace: &str, expected: &str) {
    wait_for(&expected.to_owned(), || collector.tree(trace));
}

fn trace_id(number: u32) -> String {
    format!(
        "{:032x}",
        0x4bf9_2f35_77b3_4da6_0000_0000_0000_0000 + u128::from(number)
    )
}

#[test]
fn a_request_is_one_trace_from_the_gateway_to_the_rollup() {
    let collector = Collector::start().unwrap();
    let cluster = traced(small(), &collector.url(), NEVER).start().unwrap();
    let users = [User::of(&cluster, 0), User::of(&cluster, 1)];
    let inside = Inside::of(&cluster);
    // Later, its first connections are not in the way.
    let first = users[0].shorten("https://example.com/first");
    wait_until("redis is written to", || inside.held(&first).is_some());

    let create = trace_id(1);
    let body = serde_json::json!({ "url": "https://example.com/secret?secret=query" });
    let request = users[0].request("POST", "/shorten", Some(&body));
    let request = request.header("traceparent", traceparent(&create));
    let created: serde_json::Value = request.send().unwrap().json().unwrap();
    let slug = created["slug"].as_str().unwrap();
    let rpc = "waypost.link.v1.LinkService";
    let set = "\x20 SET [gateway client] db.operation.name=SET db.system.name=redis\n";
    expect_tree(
        &collector,
        &create,
        &format!(
            "POST /shorten [gateway server] http.request.method=POST \
             http.response.status_code=201 http.route=/shorten\n\
             \x20 create together [gateway internal] waypost.batch.items=1\n\
             \x20   {rpc}/CreateBatch [gateway client] rpc.grpc.status_code=0 rpc.system=grpc\n\
             \x20     {rpc}/CreateBatch [shard-node server] rpc.grpc.status_code=0 rpc.system=grpc\n\
             \x20       create [shard-node client] db.operation.batch.size=1 \
             db.operation.name=create db.system.name=postgresql\n{set}"
        ),
    );

    // A gateway believes Redis once it has heard of it from the shard.
    wait_until("redis is asked", || {
        users[1].follow("nosuchslug");
        metric(
            &cluster,
            1,
            "waypost_cache_lookups_total{result=\"miss\",tier=\"redis\"}",
        ) > 0.0
    });
    // Nowhere but in the shard.
    wait_until("redis has it", || inside.held(slug).is_some());
    inside.remove(slug);
    let miss = trace_id(2);
    assert_eq!(follow(&users[1], slug, &miss), 302);
    let click = format!(
        "\x20 spool click [gateway producer]\n\
         \x20 publish click [gateway producer] messaging.destination.partition.id={partition} \
         messaging.system=kafka\n\
         \x20 count click [analytics-consumer consumer] messaging.destination.name={} \
         messaging.destination.partition.id={partition} messaging.system=kafka \
         waypost.batches=1 waypost.duplicates=0\n",
        cluster.broker.topic(),
        partition = partition(slug.as_bytes()),
    );
    let redirect = |tier| {
        format!(
            "GET /{{slug}} [gateway server] http.request.method=GET \
             http.response.status_code=302 http.route=/{{slug}} waypost.tier={tier}\n"
        )
    };
    let get = |result| {
        format!(
            "\x20 GET [gateway client] db.operation.name=GET db.system.name=redis \
             waypost.result={result}\n"
        )
    };
    let expected = redirect("shard")
        + &get("miss")
        + &format!(
            "\x20 read together [gateway internal] waypost.batch.items=1\n\
             \x20   {rpc}/ResolveBatch [gateway client] rpc.grpc.status_code=0 rpc.system=grpc\n\
             \x20     {rpc}/ResolveBatch [shard-node server] rpc.grpc.status_code=0 rpc.system=grpc\n\
             \x20       resolve [shard-node client] db.operation.batch.size=1 \
             db.operation.name=resolve db.system.name=postgresql\n"
        )
        + set
        + &click;
    expect_tree(&collector, &miss, &expected);

    // From now on it is in the memory of that gateway.
    let hit = trace_id(3);
    assert_eq!(follow(&users[1], slug, &hit), 302);
    expect_tree(&collector, &hit, &(redirect("l1") + &click));

    // What nobody is there for is no error.
    let absent = trace_id(4);
    assert_eq!(follow(&users[0], "nosuchslug", &absent), 404);
    wait_until("the refusal is told", || {
        let tree = collector.tree(&absent);
        tree.contains("status_code=404") && !tree.contains("ERROR")
    });

    // Statistics are two questions: of the days that are asked for, and of all.
    let stats = trace_id(7);
    let request = users[0].request("GET", &format!("/api/v1/links/{slug}/stats"), None);
    let request = request.header("traceparent", traceparent(&stats));
    assert_eq!(request.send().unwrap().status(), 200);
    let statement = |name: &str| {
        format!(
            "\x20     {name} [analytics-consumer client] db.operation.name={name} \
             db.system.name=postgresql\n"
        )
    };
    let statements = ["counted_up_to", "link_days"].map(statement);
    wait_until("what the database was asked is told", || {
        let tree = collector.tree(&stats);
        let told = |line: &String| tree.matches(&**line).count() == 2;
        statements.iter().all(told)
    });

    // The caller is the parent, and nothing else was traced: not the requests that did
    // not ask for it, nor what the processes do by themselves.
    users[0].follow(slug);
    let refused = users[0].request("GET", &format!("/{slug}"), None);
    let header = traceparent(&trace_id(5)).replace("-01", "-00");
    refused.header("traceparent", header).send().unwrap();
    let last = trace_id(6);
    assert_eq!(follow(&users[0], slug, &last), 302);
    wait_until("the last one is counted", || {
        collector.tree(&last).contains("count click")
    });
    assert!(metric(&cluster, 0, SENT) > 0.0);
    let asked: Vec<String> = [1, 2, 3, 4, 6, 7].into_iter().map(trace_id).collect();
    for span in collector.spans() {
        assert!(asked.contains(&span.trace), "{span:?}");
        let is_root = span.kind == "server" && span.service == "waypost-gateway";
        assert_eq!(is_root, span.parent == CALLER, "{span:?}");
        let text = format!("{span:?}");
        for secret in [slug, "secret", "127.0.0.1", "nosuchslug"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert_quiet(&cluster);
}

#[test]
fn requests_that_share_a_call_point_at_it_and_errors_are_marked() {
    let collector = Collector::start().unwrap();
    let cluster = small()
        .gateways(1)
        .proxied(Link::ShardNodes)
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_REDIS", "");
    let cluster = traced(cluster, &collector.url(), NEVER).start().unwrap();
    let user = User::of(&cluster, 0);
    let slugs: Vec<String> = (0..4)
        .map(|n| user.shorten(&format!("https://example.com/shared/{n}")))
        .collect();
    let node = &cluster.shards[0].nodes[0];
    let proxy = node.proxy().unwrap();

    // Two calls fill the line to the shard, so that what comes meanwhile leaves together.
    proxy.set(Mode::Delay(Duration::from_millis(150)));
    let both = || {
        std::thread::scope(|scope| {
            for (slug, number) in slugs.iter().zip(1..) {
                let user = &user;
                scope.spawn(move || follow(user, slug, &trace_id(number)));
            }
        });
        let spans = collector.spans();
        let pairs = spans.iter().filter(|span| !span.links.is_empty());
        pairs.cloned().collect::<Vec<_>>()
    };
    let mut shared = Vec::new();
    wait_until("two requests share a call", || {
        shared = both();
        !shared.is_empty()
    });
    let follower = &shared[0];
    assert_eq!(follower.name, "read together");
    let spans = collector.spans();
    let first = spans.iter().find(|span| span.id == follower.links[0]);
    let first = first.expect("the span that is pointed at");
    assert_eq!(first.name, "read together");
    assert_ne!(first.trace, follower.trace);
    assert_eq!(first.attributes, follower.attributes);
    let call = spans.iter().find(|span| span.parent == first.id);
    assert_eq!(call.unwrap().kind, "client");
    assert!(spans.iter().all(|span| span.parent != follower.id));

    proxy.set(Mode::Pass);
    node.kill().unwrap();
    let lost = trace_id(9);
    assert_eq!(follow(&user, &slugs[0], &lost), 503);
    let marked = [
        "http.response.status_code=503 http.route=/{slug} waypost.tier=shard ERROR\n",
        "rpc.system=grpc ERROR\n",
    ];
    wait_until("the failure is told", || {
        let tree = collector.tree(&lost);
        marked.iter().all(|line| tree.contains(line))
    });
}

#[test]
fn a_collector_that_is_away_or_hangs_costs_no_request_anything() {
    // Takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let closed = Port::reserve().unwrap();
    // Whom one waits for, the queue fills up; who refuses at once empties it.
    for (address, lost) in [(silent_address, DROPPED), (closed.address(), FAILED)] {
        let url = format!("http://{address}");
        let cluster = traced(small().gateways(1), &url, "1").start().unwrap();
        let user = User::of(&cluster, 0);
        let slug = user.shorten("https://example.com/unheard");
        // More spans than wait for a collector.
        for n in 0..1_500 {
            let begun = Instant::now();
            assert_eq!(user.follow(&slug).0, 302);
            let taken = begun.elapsed();
            assert!(taken < Duration::from_secs(1), "{n} took {taken:?}");
        }
        wait_until("clicks are counted", || user.clicks(&slug) == Some(1_500));
        wait_until("the operator is told", || {
            let log = cluster.sandbox().log_tail("gateway-0", 100);
            log.contains("the collector takes no traces")
        });
        wait_until("what is lost is counted", || {
            metric(&cluster, 0, lost) > 0.0
        });
        assert_eq!(metric(&cluster, 0, SENT), 0.0);
        for service in cluster.services() {
            let ended = service.terminate(Duration::from_secs(20));
            assert!(ended.unwrap(), "{} ends", service.name());
        }
    }
}
