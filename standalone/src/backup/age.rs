//! The file format of the tool `age` (age-encryption.org/v1) with a passphrase: a backup
//! can be opened without Waypost, by `age --decrypt`.
//!
//! A key of the file's own encrypts chunks of 64 KiB by ChaCha20-Poly1305. It stands in
//! the header, encrypted by what scrypt makes of the passphrase.

use std::io::{self, BufRead, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const FIRST_LINE: &str = "age-encryption.org/v1";
const SCRYPT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";

/// scrypt's work as `age` itself has it: about a second, and 256 MiB of memory.
const WORK: u8 = 18;

/// A file may ask for more work, up to 1 GiB of memory.
const MOST_WORK: u8 = 20;

const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// Bytes of a header's line, of which the longest has 64 characters.
const LONGEST_LINE: u64 = 256;

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it does not begin as a backup of `waypost backup` does")]
    Foreign,
    #[error("it is encrypted with something else than a passphrase")]
    NoPassphrase,
    #[error("the passphrase is another, or the file is damaged at its beginning")]
    Passphrase,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Encrypts what is written to it.
pub(super) struct Writer<W> {
    out: W,
    stream: Stream,
    chunk: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub(super) fn new(out: W, passphrase: &str) -> io::Result<Self> {
        Self::with_work(out, passphrase, WORK)
    }

    fn with_work(mut out: W, passphrase: &str, work: u8) -> io::Result<Self> {
        let (file_key, salt, nonce) = (random::<16>()?, random::<16>()?, random::<16>()?);
        let wrapped = cipher(&wrapping_key(passphrase, &salt, work))
            .encrypt(&Nonce::default(), file_key.as_slice())
            .map_err(|_| io::Error::other("cannot encrypt the file's key"))?;
        let header = format!(
            "{FIRST_LINE}\n-> scrypt {} {work}\n{}\n---",
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(wrapped)
        );
        let mac = header_mac(&file_key, &header).finalize().into_bytes();
        writeln!(out, "{header} {}", STANDARD_NO_PAD.encode(mac))?;
        out.write_all(&nonce)?;
        Ok(Self {
            out,
            stream: Stream::new(&file_key, &nonce),
            chunk: Vec::with_capacity(CHUNK),
        })
    }

    /// Writes the end, without which the file counts as cut off.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_chunk(true)?;
        Ok(self.out)
    }

    fn write_chunk(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = self.stream.next_nonce(is_last);
        let sealed = self.stream.cipher.encrypt(&nonce, self.chunk.as_slice());
        let sealed = sealed.map_err(|_| io::Error::other("cannot encrypt"))?;
        self.chunk.clear();
        self.out.write_all(&sealed)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for what comes: it may be the last one.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Chunks have one size: what does not fill one waits.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decrypts a file. What it gives is as it was written; that nothing is missing is known
/// only at the end.
pub(super) struct Reader<R> {
    input: R,
    stream: Stream,
    chunk: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub(super) fn new(mut input: R, passphrase: &str) -> Result<Self, Error> {
        let first = line(&mut input, Error::Foreign)?;
        if first != FIRST_LINE {
            return Err(Error::Foreign);
        }
        let stanza = line(&mut input, Error::Foreign)?;
        let (salt, work) = stanza
            .strip_prefix("-> scrypt ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or(Error::NoPassphrase)?;
        let salt: [u8; 16] = decoded(salt)?;
        let work: u8 = work.parse().map_err(|_| Error::Passphrase)?;
        if !(1..=MOST_WORK).contains(&work) {
            return Err(Error::Passphrase);
        }
        let body = line(&mut input, Error::Passphrase)?;
        let wrapped: [u8; 32] = decoded(&body)?;
        let file_key = cipher(&wrapping_key(passphrase, &salt, work))
            .decrypt(&Nonce::default(), wrapped.as_slice())
            .map_err(|_| Error::Passphrase)?;
        let last = line(&mut input, Error::Passphrase)?;
        let mac = last.strip_prefix("--- ").ok_or(Error::Passphrase)?;
        let mac: [u8; 32] = decoded(mac)?;
        header_mac(&file_key, &format!("{first}\n{stanza}\n{body}\n---"))
            .verify_slice(&mac)
            .map_err(|_| Error::Passphrase)?;
        let mut nonce = [0; 16];
        input.read_exact(&mut nonce)?;
        Ok(Self {
            input,
            stream: Stream::new(&file_key, &nonce),
            chunk: Vec::new(),
            given: 0,
            ended: false,
        })
    }

    fn read_chunk(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged or cut off");
        let is_first = self.stream.counter == 0;
        let mut sealed = Vec::with_capacity(CHUNK + TAG);
        let most = (CHUNK + TAG) as u64;
        Read::by_ref(&mut self.input)
            .take(most)
            .read_to_end(&mut sealed)?;
        let is_last = self.input.fill_buf()?.is_empty();
        let nonce = self.stream.next_nonce(is_last);
        self.chunk = self
            .stream
            .cipher
            .decrypt(&nonce, sealed.as_slice())
            .map_err(|_| damaged())?;
        if self.chunk.is_empty() && !is_first {
            return Err(damaged());
        }
        self.given = 0;
        self.ended = is_last;
        Ok(())
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.chunk.len() && !self.ended {
            self.read_chunk()?;
        }
        let left = &self.chunk[self.given..];
        let taken = left.len().min(into.len());
        into[..taken].copy_from_slice(&left[..taken]);
        self.given += taken;
        Ok(taken)
    }
}

/// The chunks' cipher and where in the file it is.
struct Stream {
    cipher: ChaCha20Poly1305,
    counter: u64,
}

impl Stream {
    fn new(file_key: &[u8], nonce: &[u8; 16]) -> Self {
        Self {
            cipher: cipher(&derived(file_key, nonce, b"payload")),
            counter: 0,
        }
    }

    /// Eleven bytes that count chunks, and one that says whether it is the last.
    fn next_nonce(&mut self, is_last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.counter.to_be_bytes());
        nonce[11] = u8::from(is_last);
        self.counter += 1;
        nonce.into()
    }
}

/// A line without its end. `otherwise`: the error if there is none.
fn line(input: &mut impl BufRead, otherwise: Error) -> Result<String, Error> {
    let mut line = Vec::new();
    input.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(otherwise);
    }
    String::from_utf8(line).map_err(|_| otherwise)
}

fn decoded<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    let bytes = STANDARD_NO_PAD
        .decode(text)
        .map_err(|_| Error::Passphrase)?;
    bytes.try_into().map_err(|_| Error::Passphrase)
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

fn wrapping_key(passphrase: &str, salt: &[u8; 16], work: u8) -> [u8; 32] {
    let salt = [SCRYPT_LABEL, salt].concat();
    let parameters = scrypt::Params::new(work, 8, 1).expect("the work is within scrypt's bounds");
    let mut key = [0; 32];
    scrypt::scrypt(passphrase.as_bytes(), &salt, &parameters, &mut key)
        .expect("32 bytes are within scrypt's bounds");
    key
}

fn header_mac(file_key: &[u8], header: &str) -> Hmac<Sha256> {
    let key = derived(file_key, &[], b"header");
    let mut mac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key).expect("HMAC takes any length");
    mac.update(header.as_bytes());
    mac
}

fn derived(file_key: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), file_key)
        .expand(info, &mut key)
        .expect("32 bytes are within HKDF's bounds");
    key
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &str = "correct horse battery";

    /// Written by age 1.1.1 of Debian: `age --passphrase`.
    const OF_AGE: &str = "\
        YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBIZWZRRUNVUDdKZUpXWHJRSFBBbmd3IDE4Ci9K\
        eks4ZjFURklXbnZ1Z2JQK2V3U1VYUVhRbTFsR20yb2pWL2dYS2RUZDAKLS0tIE5QVk40RVBqcm5oMy9k\
        UW1yeWJ0MFBkaS9TV0w2d2lXKzIrMnRETEpCbDQKy/GGsoumYORRbIUuz7U2BbsYrTdUvpbB4qxpObro\
        bm6YAl9XEOOb6twEqve2an0=";

    fn encrypted(plain: &[u8]) -> Vec<u8> {
        let mut writer = Writer::with_work(Vec::new(), PASSPHRASE, 1).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn decrypted(file: &[u8], passphrase: &str) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        Reader::new(file, passphrase)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn a_file_of_age_itself_is_read() {
        let file = base64::engine::general_purpose::STANDARD
            .decode(OF_AGE)
            .unwrap();
        assert_eq!(decrypted(&file, PASSPHRASE).unwrap(), b"hello from age\n");
    }

    #[test]
    fn what_was_written_is_read_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = encrypted(&plain);
            assert!(decrypted(&file, PASSPHRASE).unwrap() == plain, "{length}");
        }
    }

    #[test]
    fn no_other_passphrase_opens_it() {
        let refused = decrypted(&encrypted(b"plain"), "correct horse batterz");
        assert!(matches!(refused, Err(Error::Passphrase)), "{refused:?}");
    }

    #[test]
    fn no_changed_byte_and_no_shorter_file_is_taken() {
        let file = encrypted(b"plain");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(decrypted(&changed, PASSPHRASE).is_err(), "byte {at}");
            assert!(decrypted(&file[..at], PASSPHRASE).is_err(), "{at} bytes");
        }
        // A chunk that is missing as a whole leaves whole chunks.
        let file = encrypted(&vec![7; 2 * CHUNK]);
        let cut = file.len() - (CHUNK + TAG);
        assert!(decrypted(&file[..cut], PASSPHRASE).is_err());
        let longer = [file.as_slice(), &[0; TAG]].concat();
        assert!(decrypted(&longer, PASSPHRASE).is_err());
    }
}
