//! A TCP proxy that breaks what passes through it.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Doing as _, Result};
use crate::port::Port;

const BUFFER: usize = 64 * 1024;

/// How long an accepted connection waits for the server behind.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// The server is gone: connections are closed, new ones refused.
    Cut,
    /// The network swallows everything: connections open and stay open, and
    /// nothing moves. What was on its way arrives when the mode ends, as with TCP.
    Blackhole,
    /// Requests arrive, answers are lost. When the mode ends, the connections that
    /// were open are closed, since there are holes in them.
    DropReplies,
    /// Each piece of data waits at least so long, in both directions.
    Delay(Duration),
}

/// Listens on a free port of loopback and forwards to one address.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    is_listening: bool,
    is_over: bool,
    accepted: u64,
    /// Both ends of each open connection, to close them.
    open: HashMap<u64, [TcpStream; 2]>,
}

impl Proxy {
    /// Starts a proxy in front of `host:port`, which need not be there yet.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(upstream: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let address = port.address();
        let listener = TcpListener::bind(&address).doing(|| format!("listen on {address}"))?;
        let state = State {
            mode: Mode::Pass,
            is_listening: true,
            is_over: false,
            accepted: 0,
            open: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run(listener, &address))
        };
        Ok(Self {
            port,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Changes the mode; it holds when this returns.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        let left = std::mem::replace(&mut state.mode, mode);
        if mode == Mode::Cut || (left == Mode::DropReplies && mode != left) {
            state.close_all();
        }
        self.shared.changed.notify_all();
        if mode == Mode::Cut {
            drop(state);
            self.wake_acceptor();
            state = self.shared.lock();
        }
        let is_behind = |state: &mut State| state.is_listening == (mode == Mode::Cut);
        let waited = self.shared.changed.wait_while(state, is_behind);
        drop(waited);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// The acceptor sleeps in `accept`: a connection wakes it.
    fn wake_acceptor(&self) {
        // Refused if it is not listening, and then it need not be woken.
        let _ = TcpStream::connect(self.address());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.close_all();
        drop(state);
        self.shared.changed.notify_all();
        self.wake_acceptor();
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in there has been printed.
            let _ = acceptor.join();
        }
    }
}

impl State {
    fn close_all(&mut self) {
        for stream in self.open.drain().flat_map(|(_, streams)| streams) {
            // Closed already by its peer: as well.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn run(self: Arc<Self>, mut listener: TcpListener, address: &str) {
        loop {
            self.accept(&listener);
            drop(listener);
            if !self.wait_while_cut() {
                return;
            }
            listener = TcpListener::bind(address).expect("the port is held for this");
            self.lock().is_listening = true;
            self.changed.notify_all();
        }
    }

    /// Until the connection is cut or all is over.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let mut state = self.lock();
            if state.is_over || state.mode == Mode::Cut {
                return;
            }
            // Its client gave up already: on to the next.
            let Ok(client) = client else { continue };
            state.accepted += 1;
            let id = state.accepted;
            drop(state);
            let shared = Arc::clone(self);
            // A connection that fails is closed, which is all its client sees.
            std::thread::spawn(move || shared.forward(id, client).ok());
        }
    }

    /// False if it is all over.
    fn wait_while_cut(&self) -> bool {
        let mut state = self.lock();
        state.is_listening = false;
        self.changed.notify_all();
        let is_cut = |state: &mut State| state.mode == Mode::Cut && !state.is_over;
        let state = self
            .changed
            .wait_while(state, is_cut)
            .unwrap_or_else(PoisonError::into_inner);
        !state.is_over
    }

    fn forward(self: Arc<Self>, id: u64, client: TcpStream) -> io::Result<()> {
        if !self.pass_gate() {
            return Ok(());
        }
        let upstream = self.upstream.parse().map_err(io::Error::other)?;
        let server = TcpStream::connect_timeout(&upstream, CONNECT_TIMEOUT)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        {
            let mut state = self.lock();
            // Cut between being accepted and being registered.
            if state.mode == Mode::Cut || state.is_over {
                return Ok(());
            }
            let ends = [client.try_clone()?, server.try_clone()?];
            state.open.insert(id, ends);
        }
        let replies = {
            let shared = Arc::clone(&self);
            let (from, to) = (server.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || shared.copy(from, to, Direction::Reply))
        };
        self.copy(client, server, Direction::Request);
        let _ = replies.join();
        self.lock().open.remove(&id);
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !self.pass_gate() {
                break;
            }
            let mode = self.lock().mode;
            match mode {
                Mode::DropReplies if direction == Direction::Reply => continue,
                Mode::Delay(delay) => std::thread::sleep(delay),
                _ => {}
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // The other direction may still have something to say.
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits while nothing may move; false if it is all over.
    fn pass_gate(&self) -> bool {
        let is_closed = |state: &mut State| state.mode == Mode::Blackhole && !state.is_over;
        let state = self
            .changed
            .wait_while(self.lock(), is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        !state.is_over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}
