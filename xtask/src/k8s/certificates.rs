//! The certificates of a region's programs and of its Redis.

use super::topology::{Deployment, Region};
use super::{MADE, fill};

/// What a program shows when it is called, or calls: the names by which others know it.
const CERTIFICATE: &str = "\
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: @program@-tls
spec:
  secretName: @program@-tls
  duration: @life@
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [digital signature, server auth, client auth]
  dnsNames: [@names@]
  issuerRef: {kind: ClusterIssuer, name: waypost}
";

/// As many as the StatefulSet has.
const REDIS_NODES: usize = 6;

pub(super) fn of(deployment: &Deployment, region: &Region) -> String {
    let shards = deployment
        .homed(region)
        .map(|shard| format!("shard-{}.@domain@", shard.id));
    let mut programs = vec![
        // Called by nobody.
        ("gateway", vec!["gateway".to_owned()]),
        ("shard-node", shards.collect()),
        ("keygen", vec!["keygen".to_owned()]),
    ];
    if deployment.has(region, "analytics-consumer") {
        programs.push((
            "analytics-consumer",
            vec!["analytics-consumer.@domain@".to_owned()],
        ));
    }
    programs.retain(|(program, _)| deployment.has(region, program));
    // Called by the names that they announce, and by each other.
    let nodes = (0..REDIS_NODES).map(|node| format!("redis-{node}.redis"));
    programs.push(("redis", nodes.collect()));
    let certificates = programs.iter().map(|(program, names)| {
        // Redis reads its own again only because it is told to.
        let life = if *program == "redis" { "720h" } else { "24h" };
        let names = names.join(", ");
        fill(
            CERTIFICATE,
            &[("program", program), ("names", &names), ("life", life)],
        )
    });
    MADE.to_owned() + &certificates.collect::<String>().replacen("---\n", "", 1)
}
