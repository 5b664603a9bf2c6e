//! Calls between processes: how generated servers are served, and how a client comes to
//! one, over TCP or over mutual TLS.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream::Stream};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Error, Server};
use tower::Service as _;

use crate::tls::Tls;
use crate::traces::calls::ServedLayer;

/// Handshakes at a time on one port; more wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// Serves generated servers on a bound listener with the limits that all our
/// services share, until `end` comes and what was begun by then is done.
///
/// # Errors
/// If the listener cannot be served.
pub async fn serve(
    routes: Routes,
    listener: TcpListener,
    tls: Option<Tls>,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let server = Server::builder()
        // A peer behind a cut cable is noticed within 13 s.
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        // More concurrent streams than this on one connection are refused rather
        // than queued: a gateway batches, so it needs few.
        .max_concurrent_streams(1_024)
        .layer(ServedLayer)
        .add_routes(routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    match tls {
        None => server.serve_with_incoming_shutdown(incoming, end).await,
        Some(tls) => {
            let incoming = Box::pin(secured(incoming, tls));
            server.serve_with_incoming_shutdown(incoming, end).await
        }
    }
}

/// Who comes through the handshake; nobody waits for who is slow at it.
fn secured(
    incoming: TcpIncoming,
    tls: Tls,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    incoming
        .map(move |accepted| {
            let tls = tls.clone();
            async move {
                match accepted {
                    Ok(stream) => tls.accept(stream).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(std::future::ready)
}

/// A connection that is made when it is first used, and again when it breaks.
#[must_use]
pub fn channel(endpoint: &Endpoint, tls: Option<&Tls>) -> Channel {
    let Some(tls) = tls.cloned() else {
        return endpoint.connect_lazy();
    };
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(endpoint.get_tcp_nodelay());
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let (tls, connecting) = (tls.clone(), tcp.call(uri.clone()));
        async move {
            let stream = connecting.await.map_err(std::io::Error::other)?;
            // An IPv6 address has brackets in a URI, and none in a certificate.
            let host = uri.host().unwrap_or_default();
            let host = host.trim_matches(['[', ']']);
            tls.connect(host, stream.into_inner())
                .await
                .map(TokioIo::new)
        }
    }))
}

/// The same to one address of a host that has several. Its certificate must name the host.
#[must_use]
pub fn channel_to(endpoint: &Endpoint, address: SocketAddr, tls: Option<&Tls>) -> Channel {
    let Some(tls) = tls.cloned() else {
        return endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| async move {
            connect(address).await.map(TokioIo::new)
        }));
    };
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let stream = connect(address).await?;
            let host = uri.host().unwrap_or_default();
            tls.connect(host, stream).await.map(TokioIo::new)
        }
    }))
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
