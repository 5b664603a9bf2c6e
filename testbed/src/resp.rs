//! One command to a Redis node, one answer.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A node that needs longer is paused or dead.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Sends words separated by spaces; answers text. Nested answers are flattened,
/// a line per element.
pub(crate) fn query(address: SocketAddr, command: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    answer(&mut BufReader::new(stream))
}

fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line
        .split_at_checked(1)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(io::Error::other(rest.to_owned())),
        "$" => {
            // -1 stands for "no such thing".
            let Ok(length) = rest.parse::<usize>() else {
                return Ok(String::new());
            };
            let mut bytes = vec![0; length + "\r\n".len()];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => (0..rest.parse().unwrap_or(0))
            .map(|_| answer(stream))
            .collect::<io::Result<Vec<_>>>()
            .map(|parts| parts.join("\n")),
        _ => Err(io::Error::other(format!("unknown answer {line:?}"))),
    }
}
