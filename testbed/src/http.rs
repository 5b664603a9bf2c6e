//! One GET of a local server, one answer.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A page of metrics stays far below this.
const BODY_LIMIT: u64 = 16 * 1024 * 1024;

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Asks `http://address/path`.
///
/// # Errors
/// If the server cannot be reached, goes silent for as long as `timeout`, or
/// answers something else than HTTP.
pub fn get(address: &str, path: &str, timeout: Duration) -> io::Result<Response> {
    ask(address, path, "", timeout)
}

/// The same with a bearer token.
///
/// # Errors
/// As [`get`].
pub fn get_with(address: &str, path: &str, token: &str, timeout: Duration) -> io::Result<Response> {
    let header = format!("authorization: Bearer {token}\r\n");
    ask(address, path, &header, timeout)
}

fn ask(address: &str, path: &str, headers: &str, timeout: Duration) -> io::Result<Response> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // By 1.0 the answer's body is neither chunked nor followed by anything.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: {address}\r\n{headers}\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(BODY_LIMIT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok(Response {
        status,
        body: body.to_owned(),
    })
}
