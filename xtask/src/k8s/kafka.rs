//! Kafka between the regions: the hub's MirrorMaker, and what the others let it in by.

use super::topology::{Deployment, Region};
use super::{MADE, fill};

/// A listener that the hub reaches, by brokers' addresses that are routed there.
pub(super) const FAR_LISTENER: &str = "\
patches:
  - target: {kind: Kafka, name: clicks}
    patch: |-
      - op: add
        path: /spec/kafka/listeners/-
        value:
          name: regions
          port: 9094
          type: loadbalancer
          tls: true
          authentication: {type: scram-sha-512}
          configuration:
            brokerCertChainAndKey: {secretName: kafka-regions-tls, certificate: tls.crt, key: tls.key}
            bootstrap:
              annotations: {external-dns.kubernetes.io/hostname: kafka.@domain@}
            brokers:
              - {broker: 0, advertisedHost: kafka-0.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-0.@domain@}}
              - {broker: 1, advertisedHost: kafka-1.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-1.@domain@}}
              - {broker: 2, advertisedHost: kafka-2.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-2.@domain@}}
          networkPolicyPeers:
            - ipBlock: {cidr: @hub_pods@}
";

/// What the hub's MirrorMaker checks a region's brokers by, and what it may do there.
const MIRRORED_REGION: &str = "\
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: kafka-regions-tls
spec:
  secretName: kafka-regions-tls
  # The brokers are restarted for a new one.
  duration: 2160h
  renewBefore: 720h
  privateKey: {algorithm: ECDSA, size: 256, encoding: PKCS8, rotationPolicy: Always}
  usages: [digital signature, server auth]
  dnsNames: [kafka.@domain@, kafka-0.@domain@, kafka-1.@domain@, kafka-2.@domain@]
  issuerRef: {kind: ClusterIssuer, name: waypost}
---
apiVersion: kafka.strimzi.io/v1
kind: KafkaUser
metadata:
  name: mirror
  labels:
    strimzi.io/cluster: clicks
spec:
  authentication:
    type: scram-sha-512
    password: {valueFrom: {secretKeyRef: {name: mirror-secrets, key: kafka-password}}}
  authorization:
    type: simple
    acls:
      - resource: {type: topic, name: clicks, patternType: literal}
        operations: [Describe, DescribeConfigs, Read]
";

const MIRROR: &str = "\
# The clicks of all regions come into the hub's topic, partition by partition: batches are
# recognised by their identity, so that one that comes twice is counted once.
apiVersion: kafka.strimzi.io/v1
kind: KafkaMirrorMaker2
metadata:
  name: clicks-mirror
spec:
  version: 4.2.0
  replicas: 2
  target:
    alias: hub
    bootstrapServers: clicks-kafka-bootstrap:9093
    tls: {trustedCertificates: [{secretName: clicks-cluster-ca-cert, pattern: \"*.crt\"}]}
    authentication:
      type: tls
      certificateAndKey: {secretName: mirror, certificate: user.crt, key: user.key}
    groupId: clicks-mirror
    configStorageTopic: clicks-mirror-configs
    offsetStorageTopic: clicks-mirror-offsets
    statusStorageTopic: clicks-mirror-status
  mirrors:
";

const MIRRORED: &str = "    - source:
        alias: @region@
        bootstrapServers: kafka.@domain@:9094
        # The authority of all regions, which stands beside each certificate of its.
        tls: {trustedCertificates: [{secretName: gateway-tls, certificate: ca.crt}]}
        authentication:
          type: scram-sha-512
          username: mirror
          passwordSecret: {secretName: mirror-secrets, password: kafka-password}
      sourceConnector:
        tasksMax: 4
        config:
          # The topic is called the same there and here.
          replication.policy.class: org.apache.kafka.connect.mirror.IdentityReplicationPolicy
          offset-syncs.topic.location: target
          sync.topic.configs.enabled: false
          sync.topic.acls.enabled: false
          producer.override.acks: all
      topicsPattern: clicks
";

const MIRROR_PODS: &str = "  resources:
    requests: {cpu: \"1\", memory: 2Gi}
    limits: {memory: 2Gi}
  template:
    pod:
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
---
# In the hub: what Kafka Connect keeps of itself, and the clicks that come.
apiVersion: kafka.strimzi.io/v1
kind: KafkaUser
metadata:
  name: mirror
  labels:
    strimzi.io/cluster: clicks
spec:
  authentication: {type: tls}
  authorization:
    type: simple
    acls:
      - resource: {type: group, name: clicks-mirror, patternType: literal}
        operations: [Read]
      - resource: {type: topic, name: clicks-mirror-, patternType: prefix}
        operations: [Create, Describe, DescribeConfigs, Read, Write]
      - resource: {type: topic, name: mm2-offset-syncs., patternType: prefix}
        operations: [Create, Describe, DescribeConfigs, Write]
      - resource: {type: topic, name: clicks, patternType: literal}
        operations: [Describe, DescribeConfigs, Write]
";

/// In the hub.
pub(super) fn mirror(deployment: &Deployment, region: &Region) -> String {
    let sources = deployment.beside(region).map(|there| {
        let values = [("region", &*there.name), ("domain", &there.domain)];
        fill(MIRRORED, &values)
    });
    format!("{MADE}{MIRROR}{}{MIRROR_PODS}", sources.collect::<String>())
}

/// In the regions that it mirrors.
pub(super) fn mirrored() -> String {
    MADE.to_owned() + MIRRORED_REGION
}
