//! One keep-alive connection to a target.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::record::Failure;
use crate::target::Target;

/// The largest answer read: that of a batch of links is a tenth of it.
const MAX_BODY: usize = 4 << 20;
/// A target that takes no connection for so long is not there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A request as this program sends it.
pub type Outgoing = Request<Full<Bytes>>;
/// An answer, read to its end.
pub type Answer = Response<Bytes>;

/// A connection that is made when needed and kept while it holds.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Open {
    /// An answer that nobody waits for any more must not go on arriving.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// To this target; nothing is sent yet.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self { target, open: None }
    }

    /// Where it leads.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request and reads its answer. A request that a closing
    /// connection never took is sent once more, on a new one.
    ///
    /// The future may be dropped at a deadline; then [`Connection::close`] has
    /// to follow, as the answer is still on its way.
    ///
    /// # Errors
    /// [`Failure::Connect`] and [`Failure::Transport`].
    pub async fn exchange(&mut self, request: Outgoing) -> Result<Answer, Failure> {
        let result = self.try_exchange(request).await;
        if result.is_err() {
            self.close();
        }
        result
    }

    /// Makes the connection, unless it stands.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    pub async fn connect(&mut self) -> Result<(), Failure> {
        self.open().await.map(drop)
    }

    /// Drops the connection; the next request makes a new one.
    pub fn close(&mut self) {
        self.open = None;
    }

    async fn try_exchange(&mut self, request: Outgoing) -> Result<Answer, Failure> {
        let sender = self.open().await?;
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().ok_or(Failure::Transport)?;
                self.close();
                let sender = self.open().await?;
                sender
                    .send_request(unsent)
                    .await
                    .map_err(|_| Failure::Transport)?
            }
        };
        read(response).await
    }

    async fn open(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        let usable = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.open = None;
            let dial = tokio::time::timeout(CONNECT_DEADLINE, dial(&self.target));
            self.open = Some(dial.await.map_err(|_| Failure::Connect)??);
        }
        let open = self.open.as_mut();
        Ok(&mut open.expect("it was opened just above").sender)
    }
}

async fn dial(target: &Target) -> Result<Open, Failure> {
    let stream = TcpStream::connect(target.addr())
        .await
        .map_err(|_| Failure::Connect)?;
    stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Connect)?;
    // Its errors reach whoever waits for an answer on the sender.
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Open { sender, driver })
}

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|_| Failure::Transport)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
