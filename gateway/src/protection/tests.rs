use super::*;
use crate::freshness::Freshness;
use crate::routing::ShardIndex;
use crate::target::tests::target;

use std::path::Path;
use std::time::Duration;

use waypost_domain::{DomainId, SlugRef, Timestamp};
use waypost_runtime::watched::Watcher;

const PATIENCE: Duration = Duration::from_secs(20);

fn content(text: &str) -> Vec<Content> {
    vec![Content {
        file: "list".into(),
        bytes: text.as_bytes().to_vec(),
    }]
}

/// Protected by a list in a file that is watched.
fn watching(file: &Path) -> Protection {
    let registry = Registry::new();
    let source = Source {
        option: "--blocklist",
        name: "blocklist",
        files: vec![file.to_owned()],
        max_bytes: MAX_BLOCKLIST_BYTES,
    };
    let base = LongUrl::parse("https://go.example.org").unwrap();
    let policy = Policy::default().own_base(&base);
    let of_list = policy.clone();
    let watcher = Watcher::register(&registry).unwrap();
    let blocklist = watcher.watch(source, move |contents| {
        read_blocklist(contents, 7, &of_list).map(Some)
    });
    let (_, refused) = metrics(&registry).unwrap();
    Protection(Arc::new(Inner {
        policy,
        blocklist: blocklist.unwrap(),
        reserved: Watched::fixed(Reserved::default()),
        previews_mixed_scripts: true,
        refused,
    }))
}

#[tokio::test]
async fn links_in_memory_are_barred_and_let_go_with_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list");
    std::fs::write(&file, "evil.example\n").unwrap();
    let protection = watching(&file);
    let l1 = Arc::new(L1::new(1 << 20, protection.clone()));
    let end = CancellationToken::new();
    let following = tokio::spawn(follow(protection, Arc::clone(&l1), end.clone()));
    let stamp = Freshness::of(ShardIndex(0)).stamp();
    for (slug, url) in [
        ("ab000001", "https://evil.example/x"),
        ("ab000002", "https://www.worse.example/y"),
        ("ab000003", "https://good.example/z"),
        ("ab000004", "https://go.example.org/ab000004"),
        ("ab000005", "https://xn--pypal-4ve.worse.example/"),
    ] {
        let kept = l1.put(Arc::new(target(slug, url, 1)), stamp);
        assert_eq!(kept.slug().as_str(), slug);
    }
    let bars = || {
        let slugs = ["ab000001", "ab000002", "ab000003", "ab000004", "ab000005"];
        slugs.map(|slug| {
            let slug = SlugRef::parse(slug).unwrap();
            let (target, _) = l1.get(DomainId::MAIN, slug).unwrap();
            let is_barred = target.verdict(Timestamp::MAX) == Verdict::Blocked;
            assert_eq!(is_barred, target.bar().is_some_and(Bar::is_closed));
            target.bar()
        })
    };
    let (listed, own) = (Some(Bar::Blocklist), Some(Bar::OwnDomain));
    let mixed = Some(Bar::MixedScripts);
    assert_eq!(bars(), [listed, None, None, own, mixed]);
    for (list, expected) in [
        ("worse.example\n", [None, listed, None, own, listed]),
        // Refused: what was there before holds.
        ("", [None, listed, None, own, listed]),
        (
            "good.example\nexample.com/a\n",
            [None, None, listed, own, mixed],
        ),
    ] {
        std::fs::write(&file, list).unwrap();
        let changed = async {
            while bars() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let changed = tokio::time::timeout(PATIENCE, changed).await;
        assert!(changed.is_ok(), "{list:?}: {:?}", bars());
    }
    end.cancel();
    following.await.unwrap();
}

#[test]
fn a_list_is_refused_with_its_file_and_line_and_without_its_text() {
    let base = LongUrl::parse("https://go.example.org").unwrap();
    let policy = Policy::default().own_base(&base);
    let refused = |contents: &[Content]| read_blocklist(contents, 7, &policy).unwrap_err();
    assert_eq!(refused(&content("# none\n")), "list: there is no entry");
    let malformed = refused(&content("a.example\nsecret word\n"));
    assert!(malformed.starts_with("list: line 2 ") && !malformed.contains("secret"));
    assert!(refused(&content("com\n")).contains("public suffix"));
    assert!(refused(&content("example.org\n")).contains("this service itself"));
    let latin1 = vec![Content {
        file: "list".into(),
        bytes: vec![b'b', 0xfc],
    }];
    assert_eq!(refused(&latin1), "list is not in UTF-8");
    let mut with_empty = content("a.example\n");
    with_empty.extend(content(""));
    assert_eq!(refused(&with_empty), "list: there is no entry");
}

#[test]
fn reserved_words_are_read_one_a_line() {
    let reserved = Reserved::read(&content("# ours\nAcme # the company\n\ncareers\n")).unwrap();
    assert!(reserved.contains("ACME") && reserved.contains("careers"));
    assert!(!reserved.contains("ours") && !reserved.contains("acm"));
    let refused = Reserved::read(&content("acme\ntwo words\n")).unwrap_err();
    assert!(refused.starts_with("list: line 2: "), "{refused}");
}
