use super::*;

fn policy() -> Policy {
    Policy::default().own_base(&LongUrl::parse("https://go.example").unwrap())
}

#[track_caller]
fn check(policy: &Policy, text: &str) -> Result<(), Refusal> {
    let url = LongUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    policy.check(&url)
}

#[test]
fn an_address_is_recognised_in_every_notation() {
    use Purpose::*;
    let cases = [
        (
            Loopback,
            &[
                "127.0.0.1",
                "2130706433",
                "0x7f000001",
                "0X7F.1",
                "017700000001",
                "127.1",
                "127.0.1",
                "0177.0.0.0x1",
                "127.0.0.1.",
                "127%2e0%2E0.1",
                "%31%32%37.0.0.1",
                "１２７．０．０．１",
                "127。0。0。1",
                "①②⑦.0.0.1",
                "[::1]",
                "[0:0:0:0:0:0:0:1]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "[::127.0.0.1]",
                "[2002:7f00:1::]",
                "[64:ff9b::7f00:1]",
                "0.0.0.1",
            ][..],
        ),
        (
            Private,
            &[
                "10.1.2.3",
                "0xa010203",
                "167838211",
                "012.1.2.3",
                "10.66051",
                "172.16.0.1",
                "192.168.1.1",
                "3232235777",
                "0300.0250.1.1",
                "[::ffff:192.168.1.1]",
                "[fd12:3456::1]",
            ],
        ),
        (
            Metadata,
            &[
                "169.254.169.254",
                "2852039166",
                "0xa9fea9fe",
                "0251.0376.0251.0376",
                "169.254.43518",
                "[::ffff:a9fe:a9fe]",
                "[64:ff9b::169.254.169.254]",
                "[2002:a9fe:a9fe::]",
                "[fd00:ec2::254]",
                "[FD00:0EC2:0:0:0:0:0:0254]",
            ],
        ),
        (LinkLocal, &["169.254.0.1", "[fe80::1]"]),
        (Shared, &["100.64.0.1", "0x64.64.1", "1681915905"]),
        (Unspecified, &["0.0.0.0", "0", "0x0", "00", "[::]"]),
        (Multicast, &["224.0.0.1", "[ff02::1]"]),
        (
            Reserved,
            &["255.255.255.255", "4294967295", "[2001:db8::1]"],
        ),
    ];
    for (purpose, hosts) in cases {
        for host in hosts {
            for text in [
                format!("http://{host}/"),
                format!("https:\\\\{host}:8443\\x"),
            ] {
                let expected = Err(Refusal::Address(purpose));
                assert_eq!(check(&policy(), &text), expected, "{text}");
                assert_eq!(check(&policy().private(true), &text), Ok(()), "{text}");
            }
        }
    }
    for public in [
        "http://8.8.8.8/",
        "http://134744072/",
        "http://[2606:4700::1111]/",
    ] {
        assert_eq!(check(&policy(), public), Ok(()), "{public}");
    }
}

#[test]
fn names_that_are_only_known_at_home_are_refused() {
    for host in [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "localhost.localdomain",
        "printer.local",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "router.home.arpa",
        "intranet",
        "ｌｏｃａｌｈｏｓｔ",
        "local%68ost",
    ] {
        let url = format!("http://{host}/");
        assert_eq!(check(&policy(), &url), Err(Refusal::LocalName), "{host}");
        assert_eq!(check(&policy().private(true), &url), Ok(()), "{host}");
    }
    for host in [
        "mylocalhost.com",
        "local.example.com",
        "internal.example",
        "arpa.home",
    ] {
        assert_eq!(check(&policy(), &format!("http://{host}/")), Ok(()));
    }
}

#[test]
fn a_private_host_that_is_named_is_allowed_alone() {
    let host = |text| Host::parse(text).unwrap();
    let policy = policy()
        .private_host(&host("Wiki"))
        .private_host(&host("0xa000001"))
        .private_host(&host("fd00::1"));
    for url in [
        "http://wiki/x",
        "http://10.0.0.1:8080/",
        "http://[fd00:0::1]/",
    ] {
        assert_eq!(check(&policy, url), Ok(()), "{url}");
    }
    assert!(check(&policy, "http://wiki2/").is_err());
    assert!(check(&policy, "http://10.0.0.2/").is_err());
    for text in ["a/b", "a@b", "a:80", "", "a b", "[::1"] {
        assert_eq!(Host::parse(text), None, "{text}");
    }
}

#[test]
fn a_link_does_not_lead_back_to_its_own_service() {
    let policy = policy().own_host(&Host::parse("GO2.example.").unwrap());
    for url in [
        "https://go.example/abc",
        "http://GO.example:8080/",
        "https://go.example./abc",
        "https://g%6f.example/",
        "http://go2.example/",
    ] {
        assert_eq!(check(&policy, url), Err(Refusal::OwnDomain), "{url}");
    }
    let base = LongUrl::parse("http://8.8.8.8/").unwrap();
    let by_address = Policy::default().own_base(&base);
    let inside = LongUrl::parse("http://[::ffff:8.8.8.8]/abc").unwrap();
    assert!(by_address.is_own(inside.as_str()));
    for url in [
        "https://www.go.example/",
        "https://example/",
        "https://ago.example/",
    ] {
        assert_ne!(check(&policy, url), Err(Refusal::OwnDomain), "{url}");
    }
    // An address is shared with other services on other ports.
    let local = LongUrl::parse("http://127.0.0.1:8080").unwrap();
    let policy = Policy::default().own_base(&local).private(true);
    assert_eq!(
        check(&policy, "http://127.1:8080/abc"),
        Err(Refusal::OwnDomain)
    );
    assert_eq!(check(&policy, "http://127.0.0.1/abc"), Ok(()));
    let local = LongUrl::parse("http://localhost").unwrap();
    let policy = Policy::default().own_base(&local).private(true);
    assert_eq!(
        check(&policy, "http://localhost:80/a"),
        Err(Refusal::OwnDomain)
    );
    assert_eq!(check(&policy, "http://localhost:81/a"), Ok(()));
}

#[test]
fn mixed_scripts_are_refused_where_the_operator_has_it_so() {
    let url = "https://pаypal.example/login";
    assert_eq!(check(&policy(), url), Err(Refusal::MixedScripts));
    assert_eq!(check(&policy().mixed_scripts(true), url), Ok(()));
    assert_eq!(check(&policy(), "https://пример.example/"), Ok(()));
}

#[test]
fn a_canonical_url_is_cut_at_the_right_places() {
    let place = |text: &'static str| {
        let place = Place::of(text);
        (place.host, place.port, place.path)
    };
    assert_eq!(place("https://a.b/c/d?e/f#g"), ("a.b", None, "/c/d"));
    assert_eq!(place("http://a.b:81/?x:y"), ("a.b", Some("81"), "/"));
    assert_eq!(place("http://[::1]/:a"), ("[::1]", None, "/:a"));
    assert_eq!(place("http://[::1]:8080/a"), ("[::1]", Some("8080"), "/a"));
    // As releases before this one stored it.
    assert_eq!(place("http://a.b.:81/"), ("a.b", Some("81"), "/"));
}
