//! Who may depend on whom, read from the manifests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

const SERVICES: [&str; 4] = [
    "waypost-gateway",
    "waypost-shard-node",
    "waypost-keygen",
    "waypost-analytics-consumer",
];

fn workspace() -> Vec<Package> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    metadata.packages
}

fn dependencies(package: &Package, kind: DependencyKind) -> Vec<String> {
    let of_kind = package.dependencies.iter().filter(|d| d.kind == kind);
    of_kind.map(|d| d.name.clone()).collect()
}

#[test]
fn services_never_depend_on_each_other() {
    for package in workspace() {
        if !SERVICES.contains(&package.name.as_str()) {
            continue;
        }
        for kind in [DependencyKind::Normal, DependencyKind::Development] {
            let names = dependencies(&package, kind);
            let other = names.iter().find(|name| SERVICES.contains(&name.as_str()));
            assert_eq!(other, None, "of {}", package.name);
        }
    }
}

#[test]
fn the_domain_does_no_io() {
    let packages = workspace();
    let domain = packages
        .iter()
        .find(|p| p.name == "waypost-domain")
        .unwrap();
    let names = dependencies(domain, DependencyKind::Normal);
    for io in [
        "tokio", "tonic", "sqlx", "axum", "hyper", "redis", "rdkafka",
    ] {
        assert!(!names.iter().any(|name| name == io), "{io}");
    }
    assert!(!names.iter().any(|name| name.starts_with("waypost-")));
}

#[test]
fn only_standalone_sees_more_than_one_service() {
    for package in workspace() {
        let names = dependencies(&package, DependencyKind::Normal);
        let services = names
            .iter()
            .filter(|name| SERVICES.contains(&name.as_str()));
        let count = services.count();
        let expected = match package.name.as_str() {
            "waypost-standalone" => 4,
            // Tries what some of them read.
            "waypost-fuzz" => count,
            _ => 0,
        };
        assert_eq!(count, expected, "{}", package.name);
    }
}
