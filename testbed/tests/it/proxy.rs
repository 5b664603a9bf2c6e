use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use waypost_testbed::Proxy;
use waypost_testbed::proxy::Mode;

use crate::patience::wait_until;

/// Answers every byte with the same, and counts them.
struct Echo {
    address: String,
    received: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || echo(stream, &counter));
            }
        });
        Self { address, received }
    }
}

fn echo(mut stream: TcpStream, counter: &AtomicUsize) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        counter.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    stream
}

fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

fn is_silent(mut stream: &TcpStream) -> bool {
    let read = stream.read_exact(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn a_cut_closes_connections_and_refuses_new_ones_until_it_is_mended() {
    let echo = Echo::start();
    let proxy = Proxy::start(&echo.address).unwrap();
    let client = connect(&proxy);
    ask(&client).unwrap();
    proxy.set(Mode::Cut);
    assert!(ask(&client).is_err());
    let refused = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.set(Mode::Cut);
    proxy.set(Mode::Pass);
    ask(&connect(&proxy)).unwrap();
}

#[test]
fn a_blackhole_answers_nothing_and_then_delivers_what_was_on_its_way() {
    let echo = Echo::start();
    let proxy = Proxy::start(&echo.address).unwrap();
    let old = connect(&proxy);
    ask(&old).unwrap();
    proxy.set(Mode::Blackhole);
    let new = connect(&proxy);
    (&old).write_all(b"x").unwrap();
    (&new).write_all(b"x").unwrap();
    assert!(is_silent(&old) && is_silent(&new));
    assert_eq!(echo.received.load(Ordering::SeqCst), 1);
    proxy.set(Mode::Pass);
    for mut stream in [&old, &new] {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn dropped_replies_belong_to_requests_that_arrived() {
    let echo = Echo::start();
    let proxy = Proxy::start(&echo.address).unwrap();
    let client = connect(&proxy);
    ask(&client).unwrap();
    proxy.set(Mode::DropReplies);
    (&client).write_all(b"x").unwrap();
    wait_until("the request arrives", || {
        echo.received.load(Ordering::SeqCst) == 2
    });
    assert!(is_silent(&client));
    proxy.set(Mode::Pass);
    assert!(ask(&client).is_err());
    ask(&connect(&proxy)).unwrap();
}

#[test]
fn a_delay_holds_each_direction() {
    let echo = Echo::start();
    let proxy = Proxy::start(&echo.address).unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(50)));
    let started = Instant::now();
    ask(&connect(&proxy)).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_proxy_ends_in_every_mode() {
    let echo = Echo::start();
    for mode in [Mode::Pass, Mode::Cut, Mode::Blackhole, Mode::DropReplies] {
        let proxy = Proxy::start(&echo.address).unwrap();
        let _client = connect(&proxy);
        proxy.set(mode);
        let (ended, has_ended) = mpsc::channel();
        std::thread::spawn(move || {
            drop(proxy);
            ended.send(())
        });
        has_ended.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
