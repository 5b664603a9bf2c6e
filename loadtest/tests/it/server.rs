//! A shortener in a hundred lines, with the faults a test asks for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How redirects of existing links behave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    None,
    /// The n-th one takes so long.
    StallOnce(usize, Duration),
    /// Each one takes so long.
    Slow(Duration),
    /// They lead to somebody else.
    WrongLocation,
    /// They answer 503.
    Unavailable,
    /// Each connection is closed after its answer.
    CloseAlways,
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    fault: Fault,
    redirects: AtomicUsize,
    links: Mutex<BTreeMap<String, String>>,
    /// Requests by kind, and those of the API without a token.
    seen: Mutex<BTreeMap<&'static str, u64>>,
}

impl Server {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            fault,
            redirects: AtomicUsize::new(0),
            links: Mutex::default(),
            seen: Mutex::default(),
        });
        tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { url, state }
    }

    pub(crate) fn seen(&self, kind: &str) -> u64 {
        let seen = self.state.seen.lock().unwrap();
        seen.get(kind).copied().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    if path.starts_with("/api/") && !parts.headers.contains_key(AUTHORIZATION) {
        state.count("anonymous");
    }
    Ok(match (parts.method, path.as_str()) {
        (Method::POST, "/api/v1/links/batch") => state.batch(&body),
        (Method::POST, "/api/v1/links") => {
            state.count("create");
            plain(StatusCode::CREATED)
        }
        (Method::PATCH, path) => state.edit(path, &body),
        (Method::GET, path) if path.ends_with("/stats") => {
            state.count("stats");
            plain(StatusCode::OK)
        }
        (Method::GET, path) => state.redirect(&path[1..]).await,
        _ => plain(StatusCode::METHOD_NOT_ALLOWED),
    })
}

impl State {
    fn count(&self, kind: &'static str) {
        *self.seen.lock().unwrap().entry(kind).or_default() += 1;
    }

    fn batch(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let body: Value = serde_json::from_slice(body).unwrap();
        let mut links = self.links.lock().unwrap();
        let results: Vec<_> = body["links"]
            .as_array()
            .unwrap()
            .iter()
            .map(|link| {
                let slug = format!("slug{}", links.len());
                let long_url = link["longUrl"].as_str().unwrap();
                links.insert(slug.clone(), long_url.to_owned());
                json!({ "status": 201, "slug": slug, "shortUrl": format!("http://x/{slug}") })
            })
            .collect();
        Response::new(Full::from(json!({ "results": results }).to_string()))
    }

    fn edit(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        self.count("edit");
        let body: Value = serde_json::from_slice(body).unwrap();
        let slug = path.strip_prefix("/api/v1/links/").unwrap();
        let mut links = self.links.lock().unwrap();
        *links.get_mut(slug).unwrap() = body["longUrl"].as_str().unwrap().to_owned();
        plain(StatusCode::OK)
    }

    async fn redirect(&self, slug: &str) -> Response<Full<Bytes>> {
        let Some(long_url) = self.links.lock().unwrap().get(slug).cloned() else {
            self.count("miss");
            return plain(StatusCode::NOT_FOUND);
        };
        self.count("redirect");
        let number = self.redirects.fetch_add(1, Ordering::Relaxed);
        let mut response = plain(StatusCode::FOUND);
        let headers = response.headers_mut();
        headers.insert(LOCATION, long_url.parse().unwrap());
        match self.fault {
            Fault::None => {}
            Fault::StallOnce(which, time) => {
                if number == which {
                    tokio::time::sleep(time).await;
                }
            }
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::WrongLocation => {
                headers.insert(LOCATION, "https://evil.example/".parse().unwrap());
            }
            Fault::Unavailable => return plain(StatusCode::SERVICE_UNAVAILABLE),
            Fault::CloseAlways => {
                headers.insert(CONNECTION, "close".parse().unwrap());
            }
        }
        response
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
