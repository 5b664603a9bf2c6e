//! A client's socket that does not wait for ever: not for the rest of a head that has
//! begun, and not for a client that does not read its answer.
//!
//! How long a connection may be idle is hyper's affair, which knows one time for both.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// What is said to who sends a head too slowly; no request is there that could be
/// answered.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long is waited, and who counts when it was too long.
#[derive(Debug)]
pub(super) struct Patience {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// For a client to read on.
    pub(super) send: Duration,
    pub(super) slow_heads: IntCounter,
    pub(super) slow_readers: IntCounter,
}

/// Whether a request is being answered: set by who answers it, taken back when the
/// answer is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering(Arc<AtomicU8>);

/// There is no request, or a part of its head.
const IDLE: u8 = 0;

/// A request is worked on. What is written meanwhile is not its answer: "100 Continue",
/// or the rest of the answer before.
const WORKING: u8 = 1;

/// The answer is there to be written.
const ANSWERED: u8 = 2;

impl Answering {
    pub(super) fn begins(&self) {
        self.0.store(WORKING, Ordering::Relaxed);
    }

    /// The answer is handed over to be written.
    pub(super) fn answered(&self) {
        self.0.store(ANSWERED, Ordering::Relaxed);
    }

    /// Something is written. One task works, answers and writes, so that nothing comes
    /// between the look and the change.
    fn written(&self) {
        if self.0.load(Ordering::Relaxed) == ANSWERED {
            self.0.store(IDLE, Ordering::Relaxed);
        }
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed) != IDLE
    }
}

#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    patience: Arc<Patience>,
    answering: Answering,
    /// Bytes of a request have come that nobody answers yet.
    has_begun: bool,
    /// Made only when there is something to wait for: a head mostly comes in one piece.
    head: Option<Pin<Box<Sleep>>>,
    send: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, patience: Arc<Patience>, answering: Answering) -> Self {
        Self {
            tcp,
            patience,
            answering,
            has_begun: false,
            head: None,
            send: None,
        }
    }

    fn no_head(&mut self) {
        self.has_begun = false;
        self.head = None;
    }

    /// Nothing has come. Ready if the rest of a head is overdue.
    fn poll_head_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.answering.is() {
            self.no_head();
        }
        if !self.has_begun {
            return Poll::Pending;
        }
        let patience = &self.patience;
        let time = self
            .head
            .get_or_insert_with(|| Box::pin(sleep(patience.head)));
        if time.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        patience.slow_heads.inc();
        // An answer that the client has not read yet must not be cut by this one.
        if self.send.is_none() {
            let _ = self.tcp.try_write(TOO_SLOW);
        }
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Passes on what writing came to, unless the client has not read for too long.
    fn poll_sent(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.send = None;
            self.answering.written();
            self.no_head();
            return written;
        }
        let patience = &self.patience;
        let time = self
            .send
            .get_or_insert_with(|| Box::pin(sleep(patience.send)));
        if time.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        patience.slow_readers.inc();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.tcp).poll_read(cx, buffer) {
            Poll::Pending => this.poll_head_time(cx).map(Err),
            ready => {
                this.has_begun |= !this.answering.is();
                ready
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, bytes);
        this.poll_sent(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, slices);
        this.poll_sent(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
