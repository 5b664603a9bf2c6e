//! Clients that send what no honest client sends, over raw sockets: one answer at most to
//! each request, an end, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::process::{Waypost, wait_until};
use crate::public_port::{Answer, PATIENCE};

/// A request that must never be answered when it is hidden in another.
const HIDDEN: &str = "GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn start(options: &[(&str, &str)]) -> (tempfile::TempDir, Waypost) {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), options);
    (data, waypost)
}

fn connect(waypost: &Waypost) -> TcpStream {
    let address = waypost.url.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the server closes, which it must within [`PATIENCE`].
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    answer
}

fn talk(waypost: &Waypost, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(waypost);
    stream.write_all(request).unwrap();
    read_all(&mut stream)
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.split("HTTP/1.").skip(1);
    heads
        .map(|head| head.split(' ').nth(1).unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_head_that_two_servers_could_read_differently_is_refused() {
    let (_data, waypost) = start(&[]);
    let slug = waypost.shorten("https://example.com/");
    let heads = [
        "Content-Length: 5\r\nContent-Length: 60\r\n",
        "Content-Length: 5, 60\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: a\r\n folded: b\r\n",
        "X: a\0b\r\n",
        "X\0: b\r\n",
        "X: a\rContent-Length: 5\r\n",
        "No colon\r\n",
        ": no name\r\n",
    ];
    for path in [&slug, "shorten"] {
        for head in heads {
            let request =
                format!("POST /{path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n0\r\n\r\n{HIDDEN}");
            let answers = statuses(&talk(&waypost, request.as_bytes()));
            assert_eq!(answers, [400], "{head:?}");
        }
    }
}

/// What is allowed to stand, and must have one meaning.
#[test]
fn what_hides_in_a_body_is_never_answered() {
    let (_data, waypost) = start(&[]);
    let body = format!("0\r\n\r\n{HIDDEN}");
    let length = body.len();
    let heads = [
        format!("Content-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"),
    ];
    for path in ["shorten", "nosuchslug", "api/v1/links/abc"] {
        for version in ["1.0", "1.1"] {
            for head in &heads {
                let request = format!(
                    "POST /{path} HTTP/{version}\r\nHost: localhost\r\n\
                     Content-Type: application/json\r\n{head}\r\n{body}"
                );
                let mut stream = connect(&waypost);
                stream.write_all(request.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let answers = statuses(&read_all(&mut stream));
                assert!(answers.len() <= 1, "{path}, {head:?}: {answers:?}");
                assert!(!answers.contains(&204), "{path}, {head:?}");
            }
        }
    }
}

#[test]
fn chunks_that_are_none_end_the_request_and_the_connection() {
    let (_data, waypost) = start(&[]);
    for chunks in [
        "ffffffffffffffff1\r\nx",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "zz\r\nx",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "\r\n\r\n",
    ] {
        let request = format!(
            "POST /shorten HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}{HIDDEN}"
        );
        let answers = statuses(&talk(&waypost, request.as_bytes()));
        assert_eq!(answers, [400], "{chunks:?}");
    }
}

#[test]
fn request_lines_that_are_odd_get_one_answer_and_nothing_is_tunnelled() {
    let (_data, waypost) = start(&[]);
    let slug = waypost.shorten("https://example.com/");
    let cases = [
        (format!("GET http://other.example/{slug} HTTP/1.1"), 302),
        ("CONNECT example.com:443 HTTP/1.1".to_owned(), 404),
        (format!("get /{slug} HTTP/1.1"), 405),
        (format!("TRACE /{slug} HTTP/1.1"), 405),
        (format!("GET /{slug} HTTP/3.7"), 400),
        (format!("GET  /{slug}  HTTP/1.1"), 400),
        (format!("G\0T /{slug} HTTP/1.1"), 400),
        (format!("GET /{slug}\0 HTTP/1.1"), 400),
        ("OPTIONS * HTTP/1.1".to_owned(), 404),
        ("GET example.com HTTP/1.1".to_owned(), 404),
        ("PRI * HTTP/2.0".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0".to_owned(), 400),
    ];
    for (line, status) in cases {
        let request = format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answers = statuses(&talk(&waypost, request.as_bytes()));
        assert_eq!(answers, [status], "{line:?}");
    }
}

#[test]
fn what_follows_a_body_is_a_request_of_its_own_or_none() {
    let (_data, waypost) = start(&[]);
    let body = "{\"url\":\"https://example.com/\"}";
    let request = format!(
        "POST /shorten HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let garbage = talk(&waypost, format!("{request}\0\0garbage\r\n\r\n").as_bytes());
    assert_eq!(statuses(&garbage), [201, 400]);
    let again = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let both = talk(&waypost, format!("{request}{again}").as_bytes());
    assert_eq!(statuses(&both), [201, 201]);
}

#[test]
fn a_head_that_trickles_is_cut_off_and_an_idle_connection_is_not() {
    let (_data, waypost) = start(&[("WAYPOST_HEAD_TIMEOUT_MS", "700")]);
    let mut idle = connect(&waypost);
    idle.write_all(HIDDEN.as_bytes()).unwrap();
    let mut answer = [0; 1_024];
    assert!(idle.read(&mut answer).unwrap() > 0);
    let mut slow = connect(&waypost);
    let began = Instant::now();
    let mut bytes = HIDDEN.bytes().cycle();
    // As slow as it is, it never pauses for so long as the head may take.
    let cut = loop {
        assert!(began.elapsed() < PATIENCE, "the head goes on for ever");
        if slow.write_all(&[bytes.next().unwrap_or(b'a')]).is_err() {
            break true;
        }
        slow.set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        match slow.read(&mut answer) {
            Ok(0) => break true,
            Ok(count) => {
                assert!(answer[..count].starts_with(b"HTTP/1.1 408"));
                break true;
            }
            Err(_) if began.elapsed() < PATIENCE => {}
            Err(_) => break false,
        }
    };
    assert!(cut && began.elapsed() >= Duration::from_millis(600));
    assert!(waypost.metric("waypost_gateway_limited_total{limit=\"head_time\"}") >= 1.0);
    // It has been idle for longer than a head may take.
    idle.write_all(HIDDEN.as_bytes()).unwrap();
    let count = idle.read(&mut answer).unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 204"));
}

#[test]
fn who_is_told_to_continue_is_answered_however_long_the_work_takes() {
    let (_data, waypost) = start(&[("WAYPOST_HEAD_TIMEOUT_MS", "100")]);
    let link = "{\"longUrl\":\"https://example.com/\",\"password\":\"open sesame\"}";
    let body = format!("{{\"links\":[{}]}}", [link; 60].join(","));
    let mut stream = connect(&waypost);
    let head = format!(
        "POST /api/v1/links/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 1_024];
    let count = stream.read(&mut answer).unwrap();
    assert_eq!(statuses(&answer[..count]), [100]);
    let began = Instant::now();
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(statuses(&read_all(&mut stream)), [200]);
    // Else nothing was shown: each password takes some 20 ms, one after another.
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn an_idle_connection_is_closed_in_the_end() {
    let (_data, waypost) = start(&[("WAYPOST_IDLE_TIMEOUT_MS", "500")]);
    for request in ["", HIDDEN] {
        let answers = statuses(&talk(&waypost, request.as_bytes()));
        let expected: &[u16] = if request.is_empty() { &[] } else { &[204] };
        assert_eq!(answers, expected);
    }
}

/// Of all bodies together there is room for 32 MiB of batches, and as much of all else.
#[test]
fn batches_that_are_never_finished_are_held_up_to_a_bound_and_hold_up_nothing_else() {
    let (_data, waypost) = start(&[("WAYPOST_LIMIT_ANONYMOUS_CREATES", "off")]);
    let length = 1024 * 1024;
    let head = format!(
        "POST /api/v1/links/batch HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let unfinished = vec![b' '; length - 1];
    let _held: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut stream = connect(&waypost);
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&unfinished).unwrap();
            stream
        })
        .collect();
    let batch = || {
        let body = "{\"links\":[{\"longUrl\":\"https://example.com/\"}]}";
        let request = waypost.request("POST", "/api/v1/links/batch");
        let request = request.header("content-type", "application/json");
        request.body(body).send().unwrap().status().as_u16()
    };
    wait_until("there is no room", || batch() == 503);
    waypost.shorten("https://example.com/");
    let shed = "waypost_gateway_shed_total{lane=\"bodies\"}";
    assert!(waypost.metric(shed) >= 1.0);
    // They had their time, and are let go.
    wait_until("there is room again", || batch() == 200);
}

#[test]
fn names_that_are_wrongly_encoded_name_nothing() {
    let (_data, waypost) = start(&[("WAYPOST_ANONYMOUS", "true")]);
    for (path, code) in [
        ("/api/v1/links/%ff/stats", "link_not_found"),
        ("/api/v1/links/%C3%28/stats", "link_not_found"),
        ("/stats/%ff", "route_not_found"),
        ("/docs/%ff", "route_not_found"),
        ("/%ff", "route_not_found"),
    ] {
        let answer = waypost.get(path);
        assert_eq!(answer.status(), 404, "{path}");
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/problem+json", "{path}");
        let problem: serde_json::Value = answer.json().unwrap();
        assert_eq!(problem["code"], code, "{path}");
    }
}

#[test]
fn a_body_that_trickles_is_answered_with_its_timeout() {
    let (_data, waypost) = start(&[]);
    let mut slow = connect(&waypost);
    slow.write_all(
        b"POST /shorten HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\n\r\n{",
    )
    .unwrap();
    slow.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    let answer = read_all(&mut slow);
    let (answer, rest) = Answer::split(&answer, true).unwrap();
    assert_eq!((answer.status, rest), (408, &b""[..]));
    assert_eq!(answer.header("content-type"), "application/problem+json");
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let (_data, waypost) = start(&[("WAYPOST_SEND_TIMEOUT_MS", "500")]);
    let mut deaf = connect(&waypost);
    deaf.set_nonblocking(true).unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let refused = || waypost.metric("waypost_gateway_limited_total{limit=\"send_time\"}");
    wait_until("it is let go", || {
        let _ = deaf.write(&request);
        refused() >= 1.0
    });
}

#[test]
fn who_closes_one_half_is_answered_or_closed_and_never_kept() {
    let (_data, waypost) = start(&[]);
    let slug = waypost.shorten("https://example.com/");
    for path in [&slug, "nosuchslug", "robots.txt"] {
        let mut half = connect(&waypost);
        let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        half.write_all(request.as_bytes()).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
        let answers = statuses(&read_all(&mut half));
        assert!(answers.len() <= 1, "{path}: {answers:?}");
    }
    // Half a head, and nothing more to come.
    let mut half = connect(&waypost);
    half.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(statuses(&read_all(&mut half))[..], [] | [400]));
}

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_waiting() {
    let options = [("WAYPOST_MAX_CONNECTIONS_PER_ADDRESS", "5000")];
    let (_data, waypost) = start(&options);
    let slug = waypost.shorten("https://example.com/");
    let mut idle: Vec<TcpStream> = (0..1_000).map(|_| connect(&waypost)).collect();
    for (stream, half) in idle.iter_mut().zip(["", "GET / HT", HIDDEN].iter().cycle()) {
        stream.write_all(half.as_bytes()).unwrap();
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(waypost.follow(&slug).0, 302);
        waypost.get("/robots.txt");
    }
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
