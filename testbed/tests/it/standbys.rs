//! Standbys: what is committed is on one of them, and nothing is without one.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;

use waypost_testbed::Postgres;

use crate::patience::wait_until;

const DATABASE: &str = "postgres";

fn with_two_standbys() -> (Postgres, [Postgres; 2]) {
    let primary = Postgres::start().unwrap();
    primary
        .query(DATABASE, "CREATE TABLE t (n int PRIMARY KEY)")
        .unwrap();
    let standbys = primary.start_standbys(2).unwrap();
    (primary, standbys.try_into().unwrap())
}

#[test]
fn a_committed_row_is_on_a_standby_after_the_primary_was_killed() {
    let (primary, [frozen, streaming]) = with_two_standbys();
    frozen.pause().unwrap();
    primary
        .query(DATABASE, "INSERT INTO t SELECT generate_series(1, 1000)")
        .unwrap();
    primary.kill().unwrap();
    let count = || streaming.query(DATABASE, "SELECT count(*) FROM t").unwrap();
    wait_until("the standby has applied what it has", || count() == "1000");
    let refused = streaming.query(DATABASE, "DELETE FROM t").unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");

    frozen.resume().unwrap();
    primary.restart().unwrap();
    primary.wait_streaming(2).unwrap();
    primary
        .query(DATABASE, "INSERT INTO t VALUES (1001)")
        .unwrap();
    for standby in [frozen, streaming] {
        wait_until("the standby streams again", || {
            standby.query(DATABASE, "SELECT max(n) FROM t").unwrap() == "1001"
        });
    }
}

#[test]
fn a_commit_waits_while_no_standby_answers_and_returns_when_one_does() {
    let (primary, standbys) = with_two_standbys();
    for standby in &standbys {
        standby.pause().unwrap();
    }
    let (committed, outcome) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            // A timeout ends statements, and not the wait of a commit: nobody is told
            // that a row is safe which is not.
            let sql = "SET statement_timeout = '1 s'; INSERT INTO t VALUES (1)";
            committed.send(primary.query(DATABASE, sql)).unwrap();
        });
        let waits = "SELECT count(*) FROM pg_stat_activity
                     WHERE wait_event = 'SyncRep' AND now() - query_start > interval '1.5 s'";
        wait_until("the commit waits for a standby", || {
            primary.query(DATABASE, waits).unwrap() == "1"
        });
        assert_eq!(outcome.try_recv().unwrap_err(), TryRecvError::Empty);
        let seen = primary.query(DATABASE, "SELECT count(*) FROM t").unwrap();
        assert_eq!(seen, "0", "nobody sees what no standby has");
        standbys[1].resume().unwrap();
        outcome.recv().unwrap().unwrap();
    });
    let seen = primary.query(DATABASE, "SELECT count(*) FROM t").unwrap();
    assert_eq!(seen, "1");
}
