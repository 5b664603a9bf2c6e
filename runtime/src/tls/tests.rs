//! Two ends of a connection, with certificates as operators make them.

use std::path::Path;
use std::time::{Duration, Instant};

use prometheus::{Encoder as _, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{CertificateError, Error as Rustls};
use waypost_testbed::certificates::{Authority, Life, Mount};

use super::{Tls, TlsOptions};
use crate::admin::Readiness;
use crate::metrics::Registry;
use crate::traces::Sampler;
use crate::watched::Watcher;
use crate::{Process, Shutdown};

struct Ground {
    folder: tempfile::TempDir,
    process: Process,
}

impl Ground {
    fn new() -> Self {
        let registry = Registry::new();
        Self {
            folder: tempfile::tempdir().unwrap(),
            process: Process {
                shutdown: Shutdown::new(Duration::ZERO),
                readiness: Readiness::default(),
                watcher: Watcher::register(&registry).unwrap(),
                registry,
                sampler: Sampler::OFF,
                threads: 1,
            },
        }
    }

    fn authority(&self, name: &str) -> Authority {
        Authority::create(&self.folder.path().join(name)).unwrap()
    }

    fn mount(&self, authority: &Authority) -> Mount {
        Mount::create(&self.folder.path().join("mount"), authority).unwrap()
    }

    fn open(&self, mount: &Mount) -> Result<Tls, String> {
        let opened = options(mount).open(&self.process);
        opened
            .map(Option::unwrap)
            .map_err(|error| error.to_string())
    }

    fn metric(&self, series: &str) -> Option<f64> {
        let mut text = Vec::new();
        let families = self.process.registry.gather();
        TextEncoder::new().encode(&families, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series))?;
        line.trim().parse().ok()
    }

    #[track_caller]
    fn wait_until(&self, series: &str, value: f64) {
        let started = Instant::now();
        while self.metric(series) != Some(value) {
            let found = self.metric(series);
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{series}: {found:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn options(mount: &Mount) -> TlsOptions {
    TlsOptions {
        tls_cert: Some(mount.certificate()),
        tls_key: Some(mount.key()),
        tls_ca: Some(mount.authorities()),
    }
}

/// How a call of the server by this name goes, with the same certificates on both sides.
async fn call(tls: &Tls, name: &str) -> Result<(), Rustls> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tls.clone();
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        server.accept(stream).await.is_some()
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = tls.connect(name, stream).await.map(drop);
    let accepted = accepting.await.unwrap();
    connected.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        Rustls::clone(inner.expect("TLS refuses, not the network"))
    })?;
    assert!(accepted);
    Ok(())
}

const READ: &str = "waypost_watched_file_readings_total{file=\"tls\",result=\"ok\"}";
const REFUSED: &str = "waypost_watched_file_readings_total{file=\"tls\",result=\"failed\"}";
const NOT_AFTER: &str = "waypost_tls_certificate_not_after_timestamp_seconds{file=\"tls\"}";
const NOT_BEFORE: &str = "waypost_tls_certificate_not_before_timestamp_seconds{file=\"tls\"}";

#[tokio::test]
async fn a_server_must_have_the_name_by_which_it_is_reached() {
    let ground = Ground::new();
    let tls = ground
        .open(&ground.mount(&ground.authority("own")))
        .unwrap();
    assert_eq!(call(&tls, "localhost").await, Ok(()));
    assert_eq!(call(&tls, "127.0.0.1").await, Ok(()));
    for other in ["shard.example", "127.0.0.2"] {
        let refused = call(&tls, other).await;
        let is_name = matches!(
            refused,
            Err(Rustls::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        );
        assert!(is_name, "{other}: {refused:?}");
    }
    let failures = "waypost_tls_handshake_failures_total{side=\"client\"}";
    assert_eq!(ground.metric(failures), Some(2.0));
}

#[tokio::test]
async fn a_replacement_is_in_force_for_the_next_handshake_and_its_dates_are_shown() {
    let ground = Ground::new();
    let old = ground.authority("old");
    let mount = ground.mount(&old);
    let tls = ground.open(&mount).unwrap();
    let shown = [NOT_BEFORE, NOT_AFTER].map(|series| ground.metric(series).unwrap());
    assert_eq!(shown[1] - shown[0], 86_400.0, "openssl was asked for a day");
    let before = tls.pair.get();

    // Nobody trusts the old authority any more: only new ones on both sides go on.
    let new = ground.authority("new");
    mount.replace(&new, Life::Day, &[&new]).unwrap();
    ground.wait_until(READ, 2.0);
    assert!(!std::sync::Arc::ptr_eq(&before, &tls.pair.get()));
    assert_eq!(call(&tls, "localhost").await, Ok(()));
    assert!(ground.metric(NOT_AFTER).unwrap() >= shown[1]);
}

#[tokio::test]
async fn a_bad_replacement_is_refused_and_the_last_good_one_goes_on() {
    let ground = Ground::new();
    let own = ground.authority("own");
    let mount = ground.mount(&own);
    let tls = ground.open(&mount).unwrap();
    let dates = ground.metric(NOT_AFTER);
    let stranger = ground.authority("stranger");

    mount.replace(&own, Life::Past, &[&own]).unwrap();
    ground.wait_until(REFUSED, 1.0);
    // A certificate that those who trust the same authorities would refuse.
    mount.replace(&stranger, Life::Day, &[&own]).unwrap();
    ground.wait_until(REFUSED, 2.0);
    assert_eq!(call(&tls, "localhost").await, Ok(()));
    assert_eq!(ground.metric(NOT_AFTER), dates);

    mount.replace(&own, Life::Day, &[&own, &stranger]).unwrap();
    ground.wait_until(READ, 2.0);
}

#[test]
fn what_cannot_be_used_is_named_at_the_start() {
    let ground = Ground::new();
    let own = ground.authority("own");
    let mount = ground.mount(&own);
    let problem = |options: &TlsOptions| {
        options
            .open(&Ground::new().process)
            .unwrap_err()
            .to_string()
    };
    let good = options(&mount);
    let without_key = TlsOptions {
        tls_key: None,
        ..good.clone()
    };
    assert!(problem(&without_key).starts_with("--tls-key: missing"));

    let other = Mount::create(&ground.folder.path().join("other"), &own).unwrap();
    let wrong_key = TlsOptions {
        tls_key: Some(other.key()),
        ..good.clone()
    };
    assert!(problem(&wrong_key).contains("is not that of the certificate"));
    let key_for_certificate = TlsOptions {
        tls_cert: Some(mount.key()),
        ..good.clone()
    };
    assert!(problem(&key_for_certificate).contains("no certificate in it"));
    let gone = TlsOptions {
        tls_ca: Some(Path::new("/nowhere/ca.crt").to_owned()),
        ..good
    };
    assert!(problem(&gone).contains("cannot read /nowhere/ca.crt"));

    mount.replace(&own, Life::Past, &[&own]).unwrap();
    let expired = problem(&options(&mount));
    assert!(expired.contains("peers would refuse"), "{expired}");
    assert!(expired.contains("expired"), "{expired}");
}
