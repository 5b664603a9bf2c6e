//! Links that move: of one tenant over the API, and all that an instance has into a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use waypost_testbed::cluster::{Certificates, Shard};
use waypost_testbed::service::programs_folder;
use waypost_testbed::{Cluster, Port, Service, http, token};

use super::{User, problem, shared, small};
use crate::patience::wait_until;

const LINKS: &str = "/api/v1/links";

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// `waypost`, with nothing of the tests' own environment.
fn waypost(arguments: &[&str]) -> Command {
    let mut command = Command::new(programs_folder().unwrap().join("waypost"));
    command.env_clear().args(arguments);
    command
}

/// Whether all went, the report and the complaints.
#[track_caller]
fn told(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A running instance.
struct Instance {
    child: Child,
    address: String,
    data: PathBuf,
    _ports: [Port; 2],
}

impl Instance {
    fn start(data: &Path) -> Self {
        let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
        let child = waypost(&[])
            .env("WAYPOST_LISTEN", ports[0].address())
            .env("WAYPOST_ADMIN_LISTEN", ports[1].address())
            .env("WAYPOST_DATA_DIR", data)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut instance = Self {
            child,
            address: ports[0].address(),
            data: data.to_owned(),
            _ports: ports,
        };
        let admin = instance._ports[1].address();
        wait_until("the instance is ready", || {
            assert_eq!(instance.child.try_wait().unwrap(), None, "it ended");
            let ready = http::get(&admin, "/ready", super::REQUEST_DEADLINE);
            ready.is_ok_and(|ready| ready.status == 200)
        });
        instance
    }

    /// Somebody of this tenant, with these scopes.
    fn user(&self, tenant: &str, scopes: &str) -> User {
        let secret = std::fs::read_to_string(self.data.join("secrets/jwt-hs256")).unwrap();
        User {
            http: super::client(),
            url: format!("http://{}", self.address),
            token: Some(token::sign(secret.trim().as_bytes(), tenant, scopes)),
        }
    }

    /// What it has written into its spool, counted or not.
    fn spooled(&self) -> f64 {
        let metrics = http::get(
            &self._ports[1].address(),
            "/metrics",
            super::REQUEST_DEADLINE,
        );
        let text = metrics.unwrap().body;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("waypost_clicks_spooled_total "));
        value.unwrap().parse().unwrap()
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(signalled.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn export(data: &Path, file: &Path) -> Output {
    let mut command = waypost(&["export", "--full", file.to_str().unwrap()]);
    command.env("WAYPOST_DATA_DIR", data).output().unwrap()
}

/// `waypost import --full` into a cluster.
fn import(cluster: &Cluster, file: &Path, arguments: &[&str]) -> (bool, String, String) {
    let addresses = |services: &[Service]| {
        let addresses: Vec<String> = services.iter().map(Service::address).collect();
        addresses.join(",")
    };
    let mut command = waypost(&["import", "--full", file.to_str().unwrap()]);
    if let Some(Certificates { mount, .. }) = &cluster.certificates {
        command.arg("--tls-cert").arg(mount.certificate());
        command.arg("--tls-key").arg(mount.key());
        command.arg("--tls-ca").arg(mount.authorities());
    }
    let output = command
        .args(["--keygen", &addresses(&cluster.keygens)])
        .args(["--analytics", &addresses(&cluster.consumers)])
        .arg("--secrets-dir")
        .arg(&cluster.secrets.folder)
        .arg("--shard-map")
        .arg(cluster.shard_map())
        .args(arguments)
        .output();
    told(&output.unwrap())
}

#[track_caller]
fn create(user: &User, link: &Value) -> String {
    let response = user.send("POST", LINKS, Some(link));
    let status = response.status();
    let link: Value = response.json().unwrap();
    assert_eq!(status, 201, "{link}");
    link["slug"].as_str().unwrap().to_owned()
}

/// Creates with an `Idempotency-Key`.
fn keyed(user: &User) -> (u16, String) {
    let body = json!({ "longUrl": "https://example.com/keyed" });
    let request = user.request("POST", LINKS, Some(&body));
    let response = request.header("idempotency-key", "order-7").send().unwrap();
    let status = response.status().as_u16();
    let link: Value = response.json().unwrap();
    (status, link["slug"].as_str().unwrap().to_owned())
}

#[track_caller]
fn done(user: &User, method: &str, path: &str, body: Option<&Value>) {
    let status = user.send(method, path, body).status();
    assert!(status.is_success(), "{method} {path}: {status}");
}

/// What the API says of a link, where it leads, and its statistics.
fn seen(user: &User, slug: &str) -> Value {
    let link = user.get(&format!("{LINKS}/{slug}"));
    let etag = link.headers().get("etag").cloned();
    let status = link.status().as_u16();
    let mut link: Value = link.json().unwrap();
    let by = "by=referrer,country,device,browser,os,language&interval=hour";
    let stats = user.get(&format!("{LINKS}/{slug}/stats?{by}"));
    let mut stats: Value = stats.json().unwrap();
    // Each server has its own name, and is as far as it is.
    for (of, own) in [(&mut link, "shortUrl"), (&mut stats, "countedUpTo")] {
        if let Some(fields) = of.as_object_mut() {
            fields.remove(own);
        }
    }
    // A link that was deleted shows nothing but that, in the words of its server.
    let link = if status == 200 { link } else { Value::Null };
    let etag = etag.map(|etag| etag.to_str().unwrap().to_owned());
    json!({ "status": status, "link": link, "etag": etag, "stats": stats })
}

/// Without a click.
fn looked_at(user: &User, slug: &str) -> (u16, String) {
    let answer = user.send("HEAD", &format!("/{slug}"), None);
    let location = answer.headers().get("location");
    let location = location.map_or("", |location| location.to_str().unwrap());
    (answer.status().as_u16(), location.to_owned())
}

fn unlock(user: &User, slug: &str) -> u16 {
    let request = user.request("POST", &format!("/{slug}"), None);
    let form = "application/x-www-form-urlencoded";
    let request = request.header("content-type", form).body("password=open");
    request.send().unwrap().status().as_u16()
}

/// Links of all kinds, and their slugs.
fn furnish(instance: &Instance) -> Vec<String> {
    let owner = instance.user("default", token::ALL_SCOPES);
    let other = instance.user("other", token::ALL_SCOPES);
    let operator = instance.user("operator", "links:takedown");
    let url = |path: &str| format!("https://example.com/{path}");
    let alias = |alias: &str| json!({ "longUrl": url(alias), "alias": alias });
    let with = |name: &str, more: Value| {
        let mut link = alias(name);
        let fields = link.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        create(&owner, &link)
    };
    let path = |slug: &str| format!("{LINKS}/{slug}");

    let mut slugs: Vec<String> = (0..3)
        .map(|n| owner.shorten(&url(&n.to_string())))
        .collect();
    slugs.push(create(&other, &alias("mv-theirs")));
    slugs.push(keyed(&owner).1);
    let full = json!({
        "title": "a \"title\"", "tags": ["a", "b,c"], "redirectStatus": 307,
        "forwardQuery": true, "validUntil": "2999-01-01T00:00:00Z",
    });
    slugs.push(with("mv-full", full));
    for n in 0..2 {
        let edit = json!({ "longUrl": url(&format!("edited/{n}")) });
        done(&owner, "PATCH", &path("mv-full"), Some(&edit));
    }
    slugs.push(with("mv-brief", json!({ "ttlSeconds": 1 })));
    slugs.push(with("mv-secret", json!({ "password": "open" })));
    slugs.push(with("mv-five", json!({ "maxVisits": 5 })));
    slugs.push(with("mv-off", json!({})));
    done(&owner, "POST", &format!("{}/disable", path("mv-off")), None);
    slugs.push(with("mv-down", json!({})));
    done(
        &owner,
        "POST",
        &format!("{}/disable", path("mv-down")),
        None,
    );
    done(
        &operator,
        "POST",
        &format!("{}/takedown", path("mv-down")),
        None,
    );
    slugs.push(with("mv-gone", json!({})));
    done(&owner, "DELETE", &path("mv-gone"), None);
    wait_until("the brief one has ended", || {
        owner.follow("mv-brief").0 == 410
    });

    for (slug, times) in [
        (&slugs[0], 7),
        (&slugs[1], 2),
        (&slugs[8], 2),
        (&slugs[5], 1),
    ] {
        for n in 0..times {
            let visit = owner.request("GET", &format!("/{slug}"), None);
            let visit = visit.header("referer", "https://news.example/");
            let agent = if n % 3 == 2 { "curl/8.5.0" } else { FIREFOX };
            let visit = visit.header("user-agent", agent).send().unwrap();
            assert!(visit.status().is_redirection(), "{slug}");
        }
        wait_until("the clicks are counted", || {
            owner.clicks(slug) == Some(times)
        });
    }
    slugs
}

#[test]
fn an_instance_moves_into_a_cluster_with_all_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("all"));
    std::fs::create_dir(&data).unwrap();
    let instance = Instance::start(&data);
    let slugs = furnish(&instance);
    let owner = instance.user("default", token::ALL_SCOPES);
    let other = instance.user("other", token::ALL_SCOPES);
    let of = |slug: &str, owner: &User, other: &User| match slug {
        "mv-theirs" => seen(other, slug),
        _ => seen(owner, slug),
    };
    let before: BTreeMap<&str, Value> = slugs
        .iter()
        .map(|slug| (slug.as_str(), of(slug, &owner, &other)))
        .collect();
    let led: Vec<(u16, String)> = slugs.iter().map(|slug| looked_at(&owner, slug)).collect();
    let (all, _, complaint) = told(&export(&data, &file));
    assert!(
        !all && complaint.contains("stop waypost first"),
        "{complaint}"
    );
    assert!(!file.exists());
    instance.stop();
    let (all, out, notes) = told(&export(&data, &file));
    assert!(all && out.is_empty(), "{notes}");
    assert!(notes.starts_with("12 links, "), "{notes}");

    let cluster = small()
        .shards(2)
        .secrets(&data.join("secrets"))
        .start()
        .unwrap();
    let (all, report, complaint) = import(&cluster, &file, &[]);
    assert!(all, "{complaint}");
    assert!(
        report.starts_with("12 links imported, 0 were there"),
        "{report}"
    );
    assert!(
        report.contains("read back as they are in the file: 12 links"),
        "{report}"
    );
    // Slugs that they got before stay with them.
    for gateway in &cluster.gateways {
        gateway.restart().unwrap();
    }
    let owner = User::of(&cluster, 0);
    let other =
        User::of(&cluster, 1).with_token(Some(cluster.token_for("other", token::ALL_SCOPES)));
    for _ in 0..2 {
        for (slug, before) in &before {
            assert_eq!(&of(slug, &owner, &other), before, "{slug}");
        }
        let leads: Vec<_> = slugs.iter().map(|slug| looked_at(&owner, slug)).collect();
        assert_eq!(leads, led);
        let (all, report, complaint) = import(&cluster, &file, &[]);
        assert!(all, "{complaint}");
        assert!(
            report.starts_with("0 links imported, 12 were there"),
            "{report}"
        );
    }

    // A tombstone is one, and nobody else's.
    assert_eq!(owner.follow("mv-gone").0, 410);
    let theirs = json!({ "longUrl": "https://example.com/", "alias": "mv-gone" });
    let refused = problem(other.send("POST", LINKS, Some(&theirs)));
    assert_eq!(refused, (409, "alias_taken".to_owned()));
    // Two of five visits were made.
    let visits: Vec<u16> = (0..4).map(|_| owner.follow("mv-five").0).collect();
    assert_eq!(visits, [302, 302, 302, 410]);
    assert_eq!(unlock(&owner, "mv-secret"), 303);
    assert_eq!(keyed(&owner), (200, slugs[4].clone()), "it was made before");
    // What was off before its takedown is off after it.
    let operator =
        User::of(&cluster, 0).with_token(Some(cluster.token_for("operator", "links:takedown")));
    done(
        &operator,
        "DELETE",
        &format!("{LINKS}/mv-down/takedown"),
        None,
    );
    assert_eq!(seen(&owner, "mv-down")["link"]["state"], "disabled");
    let edit = owner.request(
        "PATCH",
        &format!("{LINKS}/mv-full"),
        Some(&json!({ "title": "new" })),
    );
    let etag = before["mv-full"]["etag"].as_str().unwrap();
    assert_eq!(edit.header("if-match", etag).send().unwrap().status(), 200);
    let clicks = owner.clicks(&slugs[0]).unwrap();
    owner.follow(&slugs[0]);
    wait_until("a click is added", || {
        owner.clicks(&slugs[0]) == Some(clicks + 1)
    });

    // What was changed here since is newer, and stays.
    let (all, report, complaint) = import(&cluster, &file, &[]);
    assert!(all, "{complaint}");
    assert!(
        report.contains("2 links were changed in the cluster since"),
        "{report}"
    );
    assert_eq!(seen(&owner, "mv-full")["link"]["title"], "new");
    assert_eq!(owner.clicks(&slugs[0]), Some(clicks + 1));

    counters_are_ahead(&cluster, &file);
    let fresh: Vec<String> = (0..100)
        .map(|n| owner.shorten(&format!("https://example.org/{n}")))
        .collect();
    assert!(fresh.iter().all(|slug| !slugs.contains(slug)));
}

/// No slug that the instance may have given out is handed out again.
fn counters_are_ahead(cluster: &Cluster, file: &Path) {
    let rows = cluster
        .postgres
        .query(
            Cluster::KEYGEN_DATABASE,
            "SELECT prefix, next FROM key_counter",
        )
        .unwrap();
    let counters: BTreeMap<&str, u64> = rows
        .lines()
        .map(|row| row.split_once('|').unwrap())
        .map(|(prefix, next)| (prefix, next.parse().unwrap()))
        .collect();
    let mut compared = 0;
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(next) = line["counter"]["next"].as_u64() {
            let prefix = line["counter"]["prefix"].as_str().unwrap();
            assert!(counters[prefix] >= next, "{prefix}");
            compared += 1;
        }
    }
    assert!(compared > 0, "the instance has minted slugs");
}

#[test]
fn clicks_that_a_killed_instance_had_not_counted_move_along_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("all"));
    std::fs::create_dir(&data).unwrap();
    let instance = Instance::start(&data);
    let owner = instance.user("default", token::ALL_SCOPES);
    let slug = owner.shorten("https://example.com/counted/later");
    owner.follow(&slug);
    wait_until("a click is counted", || owner.clicks(&slug) == Some(1));
    // Nobody else can write there now, so that what follows stays in the spool.
    let statistics = rusqlite::Connection::open(data.join("clicks.db")).unwrap();
    statistics.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..4 {
        owner.follow(&slug);
    }
    wait_until("the others are on disk", || instance.spooled() == 5.0);
    drop(instance);
    statistics.execute_batch("ROLLBACK").unwrap();
    let counted = || {
        let sum = "SELECT sum(clicks) FROM link_day";
        let sum = statistics.query_row(sum, [], |row| row.get::<_, i64>(0));
        sum.unwrap()
    };
    assert_eq!(counted(), 1);

    for _ in 0..2 {
        let (all, _, complaint) = told(&export(&data, &file));
        assert!(all, "{complaint}");
        assert_eq!(counted(), 5);
    }
    let cluster = small()
        .tls(true)
        .secrets(&data.join("secrets"))
        .start()
        .unwrap();
    let (all, report, complaint) = import(&cluster, &file, &[]);
    assert!(all, "{complaint}");
    assert!(report.starts_with("1 links imported"), "{report}");
    let owner = User::of(&cluster, 0);
    assert_eq!(owner.clicks(&slug), Some(5));
    let found = (302, "https://example.com/counted/later".to_owned());
    assert_eq!(owner.follow(&slug), found);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("all"));
    std::fs::create_dir(&data).unwrap();
    let instance = Instance::start(&data);
    let owner = instance.user("default", token::ALL_SCOPES);
    for alias in ["mv-mine", "mv-ours", "mv-also"] {
        create(
            &owner,
            &json!({ "longUrl": "https://example.com/file", "alias": alias }),
        );
    }
    instance.stop();
    // As after a loss: an instance that was restored has begun a later epoch.
    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    for (action, data) in [("backup", &data), ("restore", &restored)] {
        let mut command = waypost(&[action, backup.to_str().unwrap()]);
        command.env("WAYPOST_DATA_DIR", data).stdin(Stdio::null());
        command.env("WAYPOST_BACKUP_PASSPHRASE", "correct horse battery");
        let (all, _, complaint) = told(&command.output().unwrap());
        assert!(all, "{complaint}");
    }
    let data = restored;
    assert!(export(&data, &file).status.success());

    let (all, _, complaint) = import(shared(), &file, &[]);
    assert!(
        !all && complaint.contains("another slug-key"),
        "{complaint}"
    );

    let cluster = small().secrets(&data.join("secrets")).start().unwrap();
    let user = User::of(&cluster, 0);
    let count = || {
        let page: Value = user.get(LINKS).json().unwrap();
        page["links"].as_array().unwrap().len()
    };
    let text = std::fs::read_to_string(&file).unwrap();
    let damaged = folder.path().join("damaged");
    let link = text.find("{\"link\"").unwrap();
    let cut = text.rfind("{\"end\"").unwrap();
    let flipped = {
        let mut bytes = text.clone().into_bytes();
        bytes[link + 60] = if bytes[link + 60] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let newer = text.replacen("\"format\":1", "\"format\":2", 1);
    for (text, what) in [
        (&text[..cut], "is cut off"),
        (&*flipped, "of the file "),
        (&*newer, "format 2"),
        ("{}\n", "not the first of a full export"),
    ] {
        std::fs::write(&damaged, text).unwrap();
        let (all, _, complaint) = import(&cluster, &damaged, &[]);
        assert!(!all && complaint.contains(what), "{complaint}");
        assert_eq!(count(), 0, "{what}");
    }

    create(
        &user,
        &json!({ "longUrl": "https://example.com/here", "alias": "mv-mine" }),
    );
    let (all, _, complaint) = import(&cluster, &file, &[]);
    assert!(!all && complaint.contains("mv-mine"), "{complaint}");
    assert!(complaint.contains("--skip-occupied"), "{complaint}");
    assert_eq!(count(), 1);
    let (all, report, complaint) = import(&cluster, &file, &["--skip-occupied"]);
    assert!(all, "{complaint}");
    assert!(report.starts_with("2 links imported"), "{report}");
    assert!(
        report.contains("1 links left out, whose slugs have other links: mv-mine"),
        "{report}"
    );
    assert_eq!(user.follow("mv-mine").1, "https://example.com/here");
    assert_eq!(user.follow("mv-ours").1, "https://example.com/file");
    let begun = text.lines().next().unwrap();
    let begun: Value = serde_json::from_str(begun).unwrap();
    let epoch = begun["waypostExport"]["epoch"].as_u64().unwrap();
    assert!(epoch > 1, "{begun}");
    let epochs = "SELECT min(epoch), max(epoch) FROM prefix_owner";
    let epochs = cluster.shards[0]
        .postgres
        .query(Shard::DATABASE, epochs)
        .unwrap();
    assert_eq!(epochs.trim(), format!("{epoch}|{epoch}"));
    // Where that epoch's counters are, slugs are handed out.
    for gateway in &cluster.gateways {
        gateway.restart().unwrap();
    }
    for n in 0..20 {
        user.shorten(&format!("https://example.org/{n}"));
    }
    counters_are_ahead(&cluster, &file);

    let missing = waypost(&["import", "--full", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(64));
    assert!(told(&missing).2.contains("--secrets-dir"));
    let (all, _, complaint) = told(&export(folder.path(), &damaged));
    assert!(
        !all && complaint.contains("is no data folder"),
        "{complaint}"
    );
}

#[test]
fn a_tenants_links_go_out_of_a_cluster_and_into_one() {
    let cluster = shared();
    let of = |tenant: &str| {
        let token = cluster.token_for(tenant, token::ALL_SCOPES);
        User::of(cluster, 1).with_token(Some(token))
    };
    let (from, to) = (of("moves-out"), of("moves-in"));
    for n in 0..5 {
        let link = json!({
            "longUrl": format!("https://example.com/move/{n}"), "title": format!("n, {n}"),
            "tags": ["moved"], "redirectStatus": 307, "maxVisits": 10 + n,
        });
        create(&from, &link);
    }
    let many: Vec<Value> = (0..130)
        .map(|n| json!({ "longUrl": format!("https://example.com/many/{n}") }))
        .collect();
    from.send(
        "POST",
        "/api/v1/links/batch",
        Some(&json!({ "links": many })),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("links.jsonl");
    let run = |action: &str, user: &User| {
        let mut command = waypost(&[action, file.to_str().unwrap(), "--server", &user.url]);
        command.env("WAYPOST_TOKEN", user.token.as_ref().unwrap());
        told(&command.output().unwrap())
    };
    let (all, _, notes) = run("export", &from);
    assert!(all && notes == "135 links exported", "{notes}");
    // Their slugs are taken here: the others get new ones.
    let text = std::fs::read_to_string(&file).unwrap();
    let rows = text.lines().map(|line| {
        let mut link: Value = serde_json::from_str(line).unwrap();
        for own in ["slug", "shortUrl"] {
            link.as_object_mut().unwrap().remove(own);
        }
        format!("{link}\n")
    });
    std::fs::write(&file, rows.collect::<String>()).unwrap();
    for report in [
        "135 created, 0 existing, 0 refused",
        "0 created, 135 existing, 0 refused",
    ] {
        let (all, counted, complaints) = run("import", &to);
        assert!(all, "{complaints}");
        assert_eq!(counted.lines().next(), Some(report));
    }
    let links = |user: &User| {
        let mut links = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Value = user
                .get(&format!("{LINKS}?limit=100{cursor}"))
                .json()
                .unwrap();
            for link in page["links"].as_array().unwrap() {
                let own = ["slug", "shortUrl", "createdAt", "updatedAt", "version"];
                let mut link = link.clone();
                for name in own {
                    link.as_object_mut().unwrap().remove(name);
                }
                links.push(link.to_string());
            }
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        links.sort();
        links
    };
    assert_eq!(links(&to), links(&from));
    assert_eq!(links(&to).len(), 135);
}
