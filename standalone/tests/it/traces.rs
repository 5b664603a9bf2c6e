//! Traces of one process: its parts are told apart as those of a cluster are.

use waypost_testbed::otlp::Collector;

use crate::process::{Waypost, wait_until};

#[test]
fn a_redirect_is_one_trace_from_the_request_to_its_count() {
    let collector = Collector::start().unwrap();
    let data = tempfile::tempdir().unwrap();
    let options = [
        ("WAYPOST_OTLP_ENDPOINT", &*collector.url()),
        ("WAYPOST_TRACE_ONE_IN", "4294967295"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        // So that each redirect needs the shard.
        ("WAYPOST_L1_MIB", "0"),
    ];
    let waypost = Waypost::start_with(data.path(), &options);
    let slug = waypost.shorten("https://example.com/traced");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = waypost.request("GET", &format!("/{slug}"));
    let header = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = request.header("traceparent", header).send().unwrap();
    assert_eq!(answer.status(), 302);
    let rpc = "waypost.link.v1.LinkService/ResolveBatch";
    let expected = format!(
        "GET /{{slug}} [waypost server] http.request.method=GET http.response.status_code=302 \
         http.route=/{{slug}} waypost.tier=shard\n\
         \x20 read together [waypost internal] waypost.batch.items=1\n\
         \x20   {rpc} [waypost client] rpc.grpc.status_code=0 rpc.system=grpc\n\
         \x20     {rpc} [waypost server] rpc.grpc.status_code=0 rpc.system=grpc\n\
         \x20       resolve [waypost client] db.operation.batch.size=1 \
         db.operation.name=resolve db.system.name=sqlite\n\
         \x20 spool click [waypost producer]\n\
         \x20 count click [waypost consumer] waypost.batches=1 waypost.duplicates=0\n"
    );
    let mut tree = String::new();
    wait_until(&format!("the trace is\n{expected}"), || {
        tree = collector.tree(trace);
        if tree.contains("count click") {
            assert_eq!(tree, expected);
        }
        tree == expected
    });
    assert!(waypost.terminate().success());
}
