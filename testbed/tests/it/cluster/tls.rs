//! A cluster whose parts speak TLS: who is let in, and certificates that are replaced.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use waypost_testbed::certificates::{Authority, Life, Mount};
use waypost_testbed::cluster::Builder;
use waypost_testbed::service::Kind;
use waypost_testbed::{Cluster, Service};

use super::outages::{metric, metric_of};
use super::restarts::{DRAIN, LAME_DUCK_MS, Traffic};
use super::{User, small};
use crate::patience::wait_until;

/// What a client of HTTP/2 begins with, and an empty frame of settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The kind of frame in which a server answers with its own settings.
const SETTINGS: u8 = 4;

const PATIENCE: Duration = Duration::from_secs(5);

/// Nothing is kept in memory, so that every redirect asks Redis or its shard.
fn secured() -> Builder {
    small()
        .tls(true)
        .set(Kind::Gateway, "WAYPOST_L1_MIB", "0")
        .set(Kind::Gateway, "WAYPOST_LAME_DUCK_MS", LAME_DUCK_MS)
}

/// Every process that takes calls of others.
fn callees(cluster: &Cluster) -> impl Iterator<Item = &Service> {
    let nodes = cluster.shards.iter().flat_map(|shard| &shard.nodes);
    nodes.chain(&cluster.keygens).chain(&cluster.consumers)
}

fn redis_hits(cluster: &Cluster) -> f64 {
    let hits = "waypost_cache_lookups_total{result=\"hit\",tier=\"redis\"}";
    metric(cluster, 0, hits)
}

#[test]
fn a_cluster_works_over_tls_alone() {
    let cluster = secured().start().unwrap();
    let user = User::of(&cluster, 0);
    let slug = user.shorten("https://example.com/over/tls");
    let found = (302, "https://example.com/over/tls".to_owned());
    assert_eq!(User::of(&cluster, 1).follow(&slug), found);
    assert_eq!(user.follow(&slug), found);
    wait_until("redis answers", || {
        user.follow(&slug);
        redis_hits(&cluster) > 0.0
    });
    wait_until("clicks are counted", || user.clicks(&slug) >= Some(3));

    let sessions =
        "SELECT count(*), bool_and(ssl AND version = 'TLSv1.3' AND client_dn = '/CN=waypost')
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'waypost-%'";
    for postgres in [&cluster.shards[0].postgres, &cluster.postgres] {
        let answer = postgres.query("postgres", sessions).unwrap();
        assert!(
            answer.ends_with("|t") && !answer.starts_with('0'),
            "{answer}"
        );
    }
    for callee in callees(&cluster) {
        let mut plain = TcpStream::connect(callee.address()).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        plain.write_all(GREETING).unwrap();
        let mut answer = [0; 9];
        let answered = plain.read_exact(&mut answer);
        let is_http = answered.is_ok() && answer[3] == SETTINGS;
        assert!(!is_http, "{} answers in the clear", callee.name());
    }
}

/// What becomes of a client with this certificate, or none.
fn greet(
    callee: &Service,
    shown: Option<&Mount>,
    trusted: &Mount,
    version: &'static SupportedProtocolVersion,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    let certificates = |file| CertificateDer::pem_file_iter(file).unwrap();
    for root in certificates(trusted.authorities()) {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_protocol_versions(&[version]);
    let config = config.with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(mount) => {
            let chain = certificates(mount.certificate()).map(Result::unwrap);
            let key = PrivateKeyDer::from_pem_file(mount.key()).unwrap();
            config.with_client_auth_cert(chain.collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(callee.address()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    let mut answer = [0; 9];
    let talked = stream
        .write_all(GREETING)
        .and_then(|()| stream.read_exact(&mut answer));
    match talked {
        Ok(()) => {
            assert_eq!(answer[3], SETTINGS);
            Ok(())
        }
        Err(error) => match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        {
            Some(error) => Err(error.clone()),
            None => panic!("{}: {error}", callee.name()),
        },
    }
}

#[test]
fn who_shows_no_good_certificate_is_refused() {
    let cluster = secured().start().unwrap();
    let own = cluster.certificates.as_ref().unwrap();
    let at = |name: &str| cluster.sandbox().folder().join(name);
    let expired = Mount::with(&at("expired"), &own.authority, Life::Past, &[]).unwrap();
    let stranger = Authority::create(&at("stranger")).unwrap();
    let foreign = Mount::create(&at("foreign"), &stranger).unwrap();
    for callee in callees(&cluster) {
        let greet = |shown, version| greet(callee, shown, &own.mount, version);
        let refused = |alert| Err(Error::AlertReceived(alert));
        let failures = || {
            metric_of(
                callee,
                "waypost_tls_handshake_failures_total{side=\"server\"}",
            )
        };
        let before = failures();
        assert_eq!(greet(Some(&own.mount), &version::TLS13), Ok(()));
        let none = greet(None, &version::TLS13);
        assert_eq!(none, refused(AlertDescription::CertificateRequired));
        let of_another = greet(Some(&foreign), &version::TLS13);
        assert_eq!(of_another, refused(AlertDescription::UnknownCA));
        let too_old = greet(Some(&expired), &version::TLS13);
        assert_eq!(too_old, refused(AlertDescription::CertificateExpired));
        let old_version = greet(Some(&own.mount), &version::TLS12);
        assert_eq!(old_version, refused(AlertDescription::ProtocolVersion));
        wait_until("each refusal is counted", || failures() - before == 4.0);
    }
}

#[test]
fn certificates_and_their_authority_are_replaced_without_a_failed_request() {
    let cluster = secured().nodes_per_shard(2).start().unwrap();
    let user = User::of(&cluster, 0);
    let slugs: Vec<String> = (0..20)
        .map(|n| user.shorten(&format!("https://example.com/renewed/{n}")))
        .collect();
    let old = &cluster.certificates.as_ref().unwrap().authority;
    let new = &Authority::create(&cluster.sandbox().folder().join("new")).unwrap();
    let traffic = Traffic::of(&cluster, &slugs);
    traffic.during(|| {
        // Believed first, then shown, and at last alone.
        let steps: [(&Authority, &[&Authority]); 3] =
            [(old, &[old, new]), (new, &[old, new]), (new, &[new])];
        for (step, (authority, trusted)) in steps.into_iter().enumerate() {
            cluster.replace_certificates(authority, trusted).unwrap();
            for service in cluster.services() {
                let taken = "waypost_watched_file_readings_total{file=\"tls\",result=\"ok\"}";
                wait_until("the new certificate is in force", || {
                    metric_of(service, taken) == (step + 2) as f64
                });
            }
            traffic.wait_for_more();
        }
        // Whoever comes anew shows the new one, to those who have run since before.
        for service in cluster.shards[0].nodes.iter().chain(&cluster.gateways) {
            assert!(
                service.terminate(DRAIN).unwrap(),
                "{} drains",
                service.name()
            );
            traffic.wait_for_more();
            service.restart().unwrap();
            traffic.wait_for_more();
        }
    });

    for node in cluster.redis.nodes() {
        node.query("CLIENT KILL TYPE normal").unwrap();
    }
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'waypost-%'";
    cluster.shards[0]
        .postgres
        .query("postgres", end_sessions)
        .unwrap();
    let hits = redis_hits(&cluster);
    wait_until("redis answers over a new connection", || {
        user.follow(&slugs[0]);
        redis_hits(&cluster) > hits + 10.0
    });
    wait_until("the database is written over a new connection", || {
        let body = serde_json::json!({ "url": "https://example.com/" });
        user.send("POST", "/shorten", Some(&body)).status() == 201
    });
}
