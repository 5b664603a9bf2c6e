//! `waypost export` and `waypost import`: a tenant's links from one server to another.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::process::{User, Waypost, command, key, wait_until};

const LINKS: &str = "/api/v1/links";

fn token(data: &Path) -> String {
    key(data, &["--admin", "--tenant", "default"])
}

/// `waypost export` or `import` at this server, with its token.
fn run(waypost: &Waypost, data: &Path, arguments: &[&str]) -> Command {
    let mut command = command();
    command
        .args(arguments)
        .env("WAYPOST_SERVER", &waypost.url)
        .env("WAYPOST_TOKEN", token(data));
    command
}

/// Gives it this on standard input.
fn feed(mut command: Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Whether all went, the report and the complaints.
fn told(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// All links by slug, without what only the server decides.
fn links(user: &User<'_>) -> Vec<Value> {
    let mut links = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = user.get(&format!("{LINKS}?limit=100{cursor}"));
        assert_eq!(status, 200, "{page}");
        for link in page["links"].as_array().unwrap() {
            let mut link = link.clone();
            for own in ["createdAt", "updatedAt", "version", "shortUrl"] {
                link.as_object_mut().unwrap().remove(own);
            }
            links.push(link);
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    links.sort_by_key(|link| link["slug"].as_str().unwrap().to_owned());
    links
}

#[test]
fn links_arrive_with_all_that_they_have_in_either_format_and_once() {
    let from = tempfile::tempdir().unwrap();
    let source = Waypost::start(from.path());
    let owner = User::of(&source, from.path(), "default");
    let make = |link: Value| {
        let (status, made) = owner.send("POST", LINKS, &link);
        assert_eq!(status, 201, "{made}");
        made["slug"].as_str().unwrap().to_owned()
    };
    for (n, title) in [
        "a, b; \"c\"",
        "two\nlines\r\nthree",
        "=1+1",
        "Grüße 🎈",
        "'",
    ]
    .into_iter()
    .enumerate()
    {
        make(
            json!({ "longUrl": format!("https://example.com/{n}?a=1,2"), "title": title,
                     "alias": format!("odd-title-{n}"), "tags": ["plain", "wörter"] }),
        );
    }
    make(
        json!({ "longUrl": "https://example.com/all", "alias": "all-fields",
                 "validSince": "2026-01-02T03:04:05.678Z", "validUntil": "2999-01-01T00:00:00Z",
                 "maxVisits": 9, "redirectStatus": 308, "forwardQuery": true,
                 "tags": ["a,b", "[c]", "d|e"] }),
    );
    let off = make(json!({ "longUrl": "https://example.com/off" }));
    owner.send("POST", &format!("{LINKS}/{off}/disable"), &Value::Null);
    make(json!({ "longUrl": "https://example.com/brief", "alias": "ends-soon", "ttlSeconds": 1 }));
    wait_until("it ends", || source.follow("ends-soon").0 == 410);
    let secret = make(
        json!({ "longUrl": "https://example.com/secret", "password": "p",
                              "alias": "has-password" }),
    );
    // More than one page.
    let many: Vec<Value> = (0..110)
        .map(|n| json!({ "longUrl": format!("https://example.com/many/{n}") }))
        .collect();
    owner.send("POST", "/api/v1/links/batch", &json!({ "links": many }));
    let stranger = User::of(&source, from.path(), "stranger");
    stranger.send(
        "POST",
        LINKS,
        &json!({ "longUrl": "https://example.com/theirs" }),
    );
    let mut expected = links(&owner);
    expected.retain(|link| link["slug"] != "ends-soon" && link["slug"] != *secret);
    assert_eq!(expected.len(), 117);

    for name in ["links.jsonl", "links.csv"] {
        let file = from.path().join(name);
        let file = file.to_str().unwrap();
        let exported = run(&source, from.path(), &["export", file])
            .output()
            .unwrap();
        let (all, out, notes) = told(&exported);
        assert!(all && out.is_empty(), "{notes}");
        assert!(
            notes.starts_with("119 links exported; 1 have a password"),
            "{notes}"
        );

        let to = tempfile::tempdir().unwrap();
        let target = Waypost::start_with(to.path(), &[("WAYPOST_DEFAULT_TTL_S", "3600")]);
        let taker = User::of(&target, to.path(), "default");
        for counted in [
            "117 created, 0 existing, 1 refused",
            "0 created, 117 existing, 1 refused",
        ] {
            let imported = run(&target, to.path(), &["import", file]).output().unwrap();
            let (all, report, complaints) = told(&imported);
            assert!(!all, "one was refused");
            assert_eq!(
                report,
                format!("{counted}; 1 left out, since they have ended")
            );
            assert!(complaints.contains(": password_missing: "), "{complaints}");
            assert_eq!(links(&taker), expected, "{name}");
        }
        assert_eq!(target.follow(&off).0, 404, "it stays switched off");
        assert_eq!(target.follow("all-fields").0, 308);
    }
}

#[test]
fn an_import_that_was_cut_off_is_run_again_and_makes_nothing_twice() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_LIMIT_CREATES", "600:20")]);
    let owner = User::of(&waypost, data.path(), "default");
    // Rows without slugs: only what they are sent with tells a repetition.
    let rows: String = (0..40)
        .map(|n| format!("{{\"url\":\"https://example.com/{n}\"}}\n"))
        .collect();
    let file = data.path().join("rows");
    std::fs::write(&file, rows).unwrap();
    let import = || run(&waypost, data.path(), &["import", file.to_str().unwrap()]);
    let mut first = import().stdout(Stdio::null()).spawn().unwrap();
    wait_until("some are there", || links(&owner).len() >= 20);
    first.kill().unwrap();
    first.wait().unwrap();
    let made = links(&owner).len();
    assert!(made < 40, "it was cut off, not done");

    let (all, report, complaints) = told(&import().output().unwrap());
    assert!(all, "{complaints}");
    let counts: Vec<usize> = report
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    // What was on its way when the first was killed may have been made since.
    assert_eq!((counts[0] + counts[1], counts[2]), (40, 0), "{report}");
    assert!(counts[1] >= made, "{report}");
    assert_eq!(links(&owner).len(), 40);
}

#[test]
fn each_refused_row_is_told_with_its_line_and_code_and_the_others_are_made() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let owner = User::of(&waypost, data.path(), "default");
    owner.send(
        "POST",
        LINKS,
        &json!({ "longUrl": "https://example.com/", "alias": "taken" }),
    );
    let csv = "Short URL,Long URL,Title,Tags,Clicks\n\
               https://old.example/good-1,https://example.com/1,\"One,\nand more\",a|b,5\n\
               taken,https://example.com/2,,,\n\
               bad-url,javascript:alert(1),,,\n\
               short,row\n\
               ,https://example.com/3,,,\n";
    let import = run(&waypost, data.path(), &["import", "-", "--format", "csv"]);
    let (all, report, complaints) = told(&feed(import, csv.as_bytes()));
    assert!(!all);
    assert_eq!(report, "2 created, 0 existing, 3 refused\nnot read: Clicks");
    let lines: Vec<&str> = complaints.lines().collect();
    assert!(
        lines[0].starts_with("line 4: alias_taken: "),
        "{complaints}"
    );
    assert!(lines[1].starts_with("line 5: url_scheme"), "{complaints}");
    assert!(
        lines[2].starts_with("line 6: row_malformed: "),
        "{complaints}"
    );
    assert_eq!(lines[3], "waypost: failed to import 3 of the links");
    let made = links(&owner);
    let good = made.iter().find(|link| link["slug"] == "good-1").unwrap();
    assert_eq!(good["title"], "One,\nand more");
    assert_eq!(good["tags"], json!(["a", "b"]));
}

#[test]
fn who_may_not_is_told_so_and_a_half_export_gets_no_name() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let file = data.path().join("links.csv");
    let mut export = command();
    export
        .arg("export")
        .arg(&file)
        .args(["--server", &waypost.url]);
    let (all, _, complaint) = told(&export.output().unwrap());
    assert!(!all && complaint.contains("401 "), "{complaint}");
    assert!(complaint.contains("WAYPOST_TOKEN"), "{complaint}");
    assert!(!file.exists());
    let secret = data.path().join("token");
    std::fs::write(&secret, format!("{}\n", token(data.path()))).unwrap();
    let (all, _, notes) = told(&export.arg("--token-file").arg(secret).output().unwrap());
    assert!(all && notes == "0 links exported", "{notes}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    for server in ["https://example.com", "example.com", "http://"] {
        let mut export = command();
        let output = export
            .args(["export", "--server", server])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{server}");
    }
}

#[test]
fn a_full_export_names_the_damaged_links_and_writes_the_others() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let owner = User::of(&waypost, data.path(), "default");
    for n in 0..30 {
        let link = json!({ "longUrl": "https://example.com/", "alias": format!("row-{n:02}") });
        assert_eq!(owner.send("POST", LINKS, &link).0, 201);
    }
    assert!(waypost.terminate().success());
    let links = rusqlite::Connection::open(data.path().join("links.db")).unwrap();
    let damage =
        "UPDATE links SET signature = zeroblob(17) WHERE slug BETWEEN 'row-03' AND 'row-24'";
    assert_eq!(links.execute(damage, []).unwrap(), 22);
    // As if a disk had written there.
    let damage = "UPDATE links SET slug = 'row-' || char(27) WHERE slug = 'row-00'";
    assert_eq!(links.execute(damage, []).unwrap(), 1);
    drop(links);

    let file = data.path().join("all");
    let mut export = command();
    export.args(["export", "--full"]).arg(&file);
    let output = export.env("WAYPOST_DATA_DIR", data.path()).output();
    let (all, _, notes) = told(&output.unwrap());
    assert!(!all);
    assert!(notes.starts_with("7 links, "), "{notes}");
    // The first twenty by name, and nothing that a terminal would act on.
    let named = r"export 23 links (row-\u{1b}, row-03, row-04, ";
    assert!(notes.contains(named), "{notes}");
    assert!(
        notes.contains(", row-21 and 3 more): their rows"),
        "{notes}"
    );
    let lines = std::fs::read_to_string(&file).unwrap();
    let links = lines.lines().filter(|line| line.starts_with("{\"link\""));
    assert_eq!(links.count(), 7);
}
