//! Certificates out of PEM files: whether they are any good, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
#[cfg(feature = "redis")]
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig, version,
};

use crate::watched::{Content, Validity};

/// Of one file. A bundle of all public authorities has a fourth of it.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// What both ends speak.
const PROTOCOL: &[u8] = b"h2";

/// What handshakes are made with, on either side.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// Reads a certificate, its key and the authorities, in this order, and checks that
/// peers with the same authorities would accept it now, in either role: what they would
/// not must not take the place of what they do.
pub(crate) fn pair(contents: &[Content]) -> Result<(Pair, Validity), String> {
    let [chain_file, key_file, roots_file] = contents else {
        return Err("expected three files".to_owned());
    };
    let chain = chain(chain_file)?;
    let key = key(key_file)?;
    let roots = Arc::new(roots(roots_file)?);
    let provider = Arc::new(ring::default_provider());
    let refused = |error: Error| match error {
        Error::InconsistentKeys(_) => format!(
            "the key in {} is not that of the certificate in {}",
            key_file.file.display(),
            chain_file.file.display()
        ),
        error => format!("peers would refuse {}: {error}", chain_file.file.display()),
    };

    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("{}: {error}", roots_file.file.display()))?;
    let now = UnixTime::now();
    verifier
        .verify_client_cert(&chain[0], &chain[1..], now)
        .map_err(refused)?;
    verify(&chain, &roots, now, &provider).map_err(refused)?;

    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(refused)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is taken up again would let in who would not be let in anew.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key)
        .map_err(refused)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();

    let pair = Pair {
        server: Arc::new(server),
        client: Arc::new(client),
    };
    let validity = validity(&chain[0]).map_err(|problem| no(chain_file, &problem))?;
    Ok((pair, validity))
}

fn chain(content: &Content) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_slice_iter(&content.bytes).collect();
    match found {
        Ok(chain) if chain.is_empty() => Err(no(content, "no certificate in it")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(no(content, &error.to_string())),
    }
}

pub(crate) fn roots(content: &Content) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in chain(content)? {
        roots
            .add(root)
            .map_err(|error| no(content, &error.to_string()))?;
    }
    Ok(roots)
}

fn key(content: &Content) -> Result<PrivateKeyDer<'static>, String> {
    // The parser's error may hold what it has read.
    PrivateKeyDer::from_pem_slice(&content.bytes)
        .map_err(|_| no(content, "no unencrypted private key in it"))
}

fn no(content: &Content, problem: &str) -> String {
    format!("{}: {problem}", content.file.display())
}

/// Checks that the key is that of the certificate, and that it is valid now, whoever may
/// have signed it.
#[cfg(feature = "redis")]
pub(crate) fn usable(chain_file: &Content, key_file: &Content) -> Result<Validity, String> {
    let chain = chain(chain_file)?;
    let validity = validity(&chain[0]).map_err(|problem| no(chain_file, &problem))?;
    let key = key(key_file)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| no(key_file, &error.to_string()))?;
    let now = UnixTime::now().as_secs();
    if now < validity.not_before {
        return Err(no(chain_file, "the certificate is not valid yet"));
    }
    if now > validity.not_after {
        return Err(no(chain_file, "the certificate has expired"));
    }
    Ok(validity)
}

/// As a client does, whatever the server's name.
fn verify(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(&chain[0])?,
        roots,
        &chain[1..],
        now,
        provider.signature_verification_algorithms.all,
    )
}

/// Nothing that we have tells when a certificate holds, but that it is looked at long
/// before or after: the time is what is looked at first.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let provider = ring::default_provider();
    let at = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let chain = std::slice::from_ref(certificate);
        verify(chain, &RootCertStore::empty(), time, &provider)
    };
    match (at(0), at(u64::MAX)) {
        (
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before, ..
            })),
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })),
        ) => Ok(Validity {
            not_before: not_before.as_secs(),
            not_after: not_after.as_secs(),
        }),
        other => Err(format!("it does not say when it is valid: {other:?}")),
    }
}
