//! Who may do what.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_testbed::service::{Kind, programs_folder};

use super::{User, problem, shared, small};
use crate::patience::wait_until;

#[test]
fn without_a_token_links_are_followed_and_nothing_else() {
    let owner = User::of(shared(), 0);
    let slug = owner.shorten("https://example.com/public");
    let anyone = User::of(shared(), 0).with_token(None);
    assert_eq!(anyone.follow(&slug).0, 302);
    let create = anyone.send(
        "POST",
        "/shorten",
        Some(&json!({ "url": "https://example.com/" })),
    );
    assert_eq!(problem(create), (401, "token_missing".to_owned()));
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(
        problem(anyone.get(&path)),
        (401, "token_missing".to_owned())
    );
    let stats = anyone.get(&format!("{path}/stats"));
    assert_eq!(problem(stats), (401, "token_missing".to_owned()));
    let forged = User::of(shared(), 0).with_token(Some(owner.token.unwrap() + "x"));
    assert_eq!(
        problem(forged.get(&path)),
        (401, "token_invalid".to_owned())
    );
}

#[test]
fn a_token_allows_what_its_scopes_say() {
    let slug = User::of(shared(), 0).shorten("https://example.com/scoped");
    let path = format!("/api/v1/links/{slug}");
    let token = shared().token_for("default", "links:read");
    let reader = User::of(shared(), 0).with_token(Some(token));
    assert_eq!(reader.get(&path).status(), 200);
    let delete = reader.send("DELETE", &path, None);
    assert_eq!(problem(delete), (403, "scope_missing".to_owned()));
    let stats = reader.get(&format!("{path}/stats"));
    assert_eq!(problem(stats), (403, "scope_missing".to_owned()));
    assert_eq!(reader.follow(&slug).0, 302);
}

#[test]
fn another_tenants_link_does_not_exist() {
    let slug = User::of(shared(), 0).shorten("https://example.com/mine");
    let path = format!("/api/v1/links/{slug}");
    let all = "links:write links:read stats:read";
    let token = shared().token_for("other", all);
    let other = User::of(shared(), 0).with_token(Some(token));
    let not_found = (404, "link_not_found".to_owned());
    assert_eq!(problem(other.get(&path)), not_found);
    assert_eq!(problem(other.get(&format!("{path}/stats"))), not_found);
    assert_eq!(problem(other.send("DELETE", &path, None)), not_found);
    let edit = json!({ "longUrl": "https://evil.example/" });
    assert_eq!(problem(other.send("PATCH", &path, Some(&edit))), not_found);
    assert_eq!(other.follow(&slug).1, "https://example.com/mine");
}

/// Somebody whose JWTs are believed, with a token made by OpenSSL for `links:read` of
/// the tenant `default` until the year 2100. The private keys exist no more.
struct Issuer {
    kid: &'static str,
    public: &'static str,
    token: &'static str,
}

const ISSUERS: [Issuer; 2] = [
    Issuer {
        kid: "a",
        public: "2c8a9gk2ZfhkSMT3ggwb9OXXI0-sMgS9YOppjEnEyvQ",
        token: "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJ0ZW5hbnQiOiJkZWZhdWx0Iiwic2NvcGUiOiJsaW5rczpyZWFkIiwiZXhwIjo0MTAyNDQ0ODAwfQ.etO_14Pl0d0atYpW_IhSPKRhVqF8ppa8LulKon7Mn3FjfvtpNZ7pIQp6kYRJOGFopqfdThuyU8arozJZQxJkBA",
    },
    Issuer {
        kid: "b",
        public: "_Zlb5v89lCMLS0dDGLyBG6EvJODKc6ZwAg8pzyxjXOs",
        token: "eyJhbGciOiJFZERTQSIsImtpZCI6ImIifQ.eyJ0ZW5hbnQiOiJkZWZhdWx0Iiwic2NvcGUiOiJsaW5rczpyZWFkIiwiZXhwIjo0MTAyNDQ0ODAwfQ.Y_GufOO1IZmsR76m1lRu0zoEyhF1v9AycFXcxQmxH03yW-2bMdj0ZI8-nKfyZqz-a6lmlebNHQCTLBfEcwYgCw",
    },
];

impl Issuer {
    fn jwks(&self) -> String {
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": self.public });
        json!({ "keys": [key] }).to_string()
    }
}

/// A folder as Kubernetes mounts a ConfigMap: `file` is a link to `..data/file`, and
/// `..data` one to a folder that never changes.
struct ConfigMap {
    folder: tempfile::TempDir,
    versions: std::cell::Cell<u32>,
}

impl ConfigMap {
    fn of(files: &[(&str, &str)]) -> Self {
        let map = Self {
            folder: tempfile::tempdir().unwrap(),
            versions: std::cell::Cell::new(0),
        };
        map.become_(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), map.folder.path().join(name)).unwrap();
        }
        map
    }

    fn become_(&self, files: &[(&str, &str)]) {
        self.versions.set(self.versions.get() + 1);
        let version = format!("..{}", self.versions.get());
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir(at(&version)).unwrap();
        for (name, text) in files {
            fs::write(at(&version).join(name), text).unwrap();
        }
        symlink(&version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// What `waypost keys` prints, for the cluster with these secrets.
fn keys(secrets: &Path, arguments: &[&str]) -> String {
    let output = Command::new(programs_folder().unwrap().join("waypost"))
        .arg("keys")
        .arg("--secrets-dir")
        .arg(secrets)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn keys_and_issuers_are_taken_and_refused_by_every_gateway_as_the_watched_files_say() {
    let map = ConfigMap::of(&[("revoked", ""), ("jwks", &ISSUERS[0].jwks())]);
    let cluster = small()
        .set(Kind::Gateway, "WAYPOST_REVOKED_KEYS", &map.path("revoked"))
        .set(Kind::Gateway, "WAYPOST_JWKS", &map.path("jwks"))
        .start()
        .unwrap();
    let owner = User::of(&cluster, 0);
    let path = format!("/api/v1/links/{}", owner.shorten("https://example.com/k"));
    let secrets = cluster.secrets.folder.as_path();
    let key = keys(secrets, &["create", "--scopes", "links:read"]);
    let answers = |token: &str| {
        [0, 1].map(|gateway| {
            let user = User::of(&cluster, gateway).with_token(Some(token.to_owned()));
            user.get(&path).status().as_u16()
        })
    };
    assert_eq!(answers(&key), [200, 200]);
    assert_eq!(answers(ISSUERS[0].token), [200, 200]);
    assert_eq!(answers(ISSUERS[1].token), [401, 401]);

    // A broken set changes nothing, and the list beside it counts all the same.
    let record = keys(secrets, &["list", "--json"]);
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let list = tempfile::tempdir().unwrap();
    let list = list.path().join("revoked");
    let file = list.to_str().unwrap();
    let id = record["id"].as_str().unwrap();
    keys(secrets, &["revoke", id, "--revoked-keys", file]);
    let list = fs::read_to_string(&list).unwrap();
    map.become_(&[("revoked", &list), ("jwks", "{\"keys\":")]);
    let changed = Instant::now();
    while answers(&key) != [401, 401] {
        assert!(changed.elapsed() < Duration::from_secs(5), "still taken");
    }
    assert_eq!(answers(ISSUERS[0].token), [200, 200]);

    map.become_(&[("revoked", &list), ("jwks", &ISSUERS[1].jwks())]);
    wait_until("the new issuer is believed", || {
        answers(ISSUERS[1].token) == [200, 200]
    });
    wait_until("the old one is not", || {
        answers(ISSUERS[0].token) == [401, 401]
    });
    assert_eq!(answers(&key), [401, 401]);
}
