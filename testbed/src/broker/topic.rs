//! Creates a topic, by the one request of the Kafka protocol that this needs.
//!
//! The brokers' own programs differ in their options, and a Kafka that somebody
//! else runs brings none along.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// `CreateTopics`, in the last version before tagged fields; every Kafka from 2.4
/// to 4 understands it.
const CREATE_TOPICS: (i16, i16) = (19, 4);

/// Leaves the number of replicas to the broker.
const DEFAULT_REPLICATION: i16 = -1;

const ALREADY_EXISTS: i16 = 36;

/// An answer for one topic takes some hundred bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Succeeds if there is such a topic afterwards, new or not.
pub(crate) fn create(server: &str, topic: &str, partitions: u32) -> io::Result<()> {
    let address = server
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = request(topic, partitions);
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > ANSWER_LIMIT {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    match error_code(&answer) {
        Some(0 | ALREADY_EXISTS) => Ok(()),
        Some(code) => Err(io::Error::other(format!(
            "the broker answered error {code}"
        ))),
        None => Err(io::Error::other("the answer is cut short")),
    }
}

fn request(topic: &str, partitions: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as i16).to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    let (key, version) = CREATE_TOPICS;
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(1_i32.to_be_bytes()); // correlation
    text(&mut bytes, "waypost-testbed"); // client
    bytes.extend(1_i32.to_be_bytes()); // topics
    text(&mut bytes, topic);
    bytes.extend(partitions.to_be_bytes());
    bytes.extend(DEFAULT_REPLICATION.to_be_bytes());
    bytes.extend(0_i32.to_be_bytes()); // assignments
    bytes.extend(0_i32.to_be_bytes()); // settings
    bytes.extend((TIMEOUT.as_millis() as i32).to_be_bytes());
    bytes.push(0); // do it, not only validate
    bytes
}

/// Behind correlation, throttle time, number of topics and the topic's name.
fn error_code(answer: &[u8]) -> Option<i16> {
    let (name_length, rest) = answer.get(12..)?.split_first_chunk()?;
    let (code, _) = rest
        .get(usize::from(u16::from_be_bytes(*name_length))..)?
        .split_first_chunk()?;
    Some(i16::from_be_bytes(*code))
}
