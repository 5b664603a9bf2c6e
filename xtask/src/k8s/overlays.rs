//! What is made out of the topology: an overlay for each region, in stages that are
//! applied one after the other, and the few files that follow from others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use waypost_domain::ShardId;
use waypost_domain::shard_map::{self, ShardMap};

use super::topology::{Deployment, Region, Shard, Size, Topology};
use super::{MADE, fill, policies, postgres, spool};

/// From the root of the clone.
pub(super) const FOLDER: &str = "deploy/k8s";

/// Folders in which nothing is that is not made here.
pub(super) const MADE_FOLDERS: [&str; 2] = ["overlays", "shard-maps"];

const HEAD: &str = "\
# Made by `cargo xtask k8s` out of deploy/topology.yaml: change it there.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
";

/// On all pods of a region.
const REGION_LABEL: &str = "\
labels:
  - pairs: {waypost.dev/region: @region@}
    includeTemplates: true
";

const IMAGES: &str = "\
images:
  - {name: waypost-gateway, newName: @registry@/waypost-gateway, newTag: \"@tag@\"}
  - {name: waypost-shard-node, newName: @registry@/waypost-shard-node, newTag: \"@tag@\"}
  - {name: waypost-keygen, newName: @registry@/waypost-keygen, newTag: \"@tag@\"}
  - {name: waypost-analytics-consumer, newName: @registry@/waypost-analytics-consumer, newTag: \"@tag@\"}
";

const SHARD: &str = "\
resources: [../../../../../base/shard]
nameSuffix: -@shard@
labels:
  - pairs: {waypost.dev/shard: @shard@}
    includeSelectors: true
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: shard
      spec:
        template:
          spec:
            containers:
              - name: shard-node
                env:
                  - {name: WAYPOST_SHARD_ID, value: @shard@}
                  - name: PG_USER
                    valueFrom: {secretKeyRef: {name: pg-@shard@-app, key: username}}
                  - name: PG_PASSWORD
                    valueFrom: {secretKeyRef: {name: pg-@shard@-app, key: password}}
                  - {name: WAYPOST_POSTGRES_URL, value: \"postgres://$(PG_USER):$(PG_PASSWORD)@pg-@shard@-rw:5432/waypost\"}
";

/// All servers of the shard's Postgres, each by itself: which of them is the primary
/// changes.
const STANDBYS: &str =
    "                  - {name: WAYPOST_POSTGRES_REPLICA_URLS, value: \"@urls@\"}\n";
const STANDBY: &str = "postgres://$(PG_USER):$(PG_PASSWORD)@pg-@shard@-@number@:5432/waypost";

/// Names of other regions' pods: external-dns publishes a headless Service's addresses.
const PUBLISHED: &str = "  - patch: |-
      apiVersion: v1
      kind: Service
      metadata:
        name: @service@
        annotations:
          external-dns.kubernetes.io/hostname: @host@
";

const MIGRATION: &str = "\
---
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate-@name@
  labels: {app.kubernetes.io/name: migrate, app.kubernetes.io/part-of: waypost}
spec:
  backoffLimit: 5
  ttlSecondsAfterFinished: 86400
  activeDeadlineSeconds: 900
  template:
    metadata:
      labels: {app.kubernetes.io/name: migrate, app.kubernetes.io/part-of: waypost}
    spec:
      restartPolicy: OnFailure
      serviceAccountName: @program@
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: @program@
          image: waypost-@program@
          env:
            - {name: WAYPOST_MIGRATE_ONLY, value: \"true\"}
            - {name: WAYPOST_SECRETS_DIR, value: /secrets}
            - name: PG_USER
              valueFrom: {secretKeyRef: {name: pg-@name@-app, key: username}}
            - name: PG_PASSWORD
              valueFrom: {secretKeyRef: {name: pg-@name@-app, key: password}}
            - {name: WAYPOST_POSTGRES_URL, value: \"postgres://$(PG_USER):$(PG_PASSWORD)@pg-@name@-rw:5432/waypost\"}
@env@          resources:
            requests: {cpu: 50m, memory: 128Mi, ephemeral-storage: 16Mi}
            limits: {memory: 128Mi, ephemeral-storage: 16Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: secrets, mountPath: /secrets, readOnly: true}
@mount@      volumes:
        - {name: secrets, secret: {secretName: @program@-secrets, defaultMode: 0440}}
@volume@";

const ROUTE: &str = "\
patches:
  - target: {kind: Gateway, name: edge}
    patch: |-
      - {op: replace, path: /spec/listeners/0/hostname, value: @host@}
      - {op: replace, path: /spec/listeners/1/hostname, value: @host@}
      - {op: add, path: /metadata/annotations/external-dns.kubernetes.io~1hostname, value: @host@}
      - {op: add, path: /metadata/annotations/external-dns.kubernetes.io~1set-identifier, value: @region@}
      - {op: add, path: /metadata/annotations/external-dns.kubernetes.io~1ttl, value: \"30\"}
  - target: {kind: HTTPRoute}
    patch: |-
      - {op: replace, path: /spec/hostnames/0, value: @host@}
";

/// A listener that the hub reaches, by brokers' addresses that are routed there.
const FAR_LISTENER: &str = "\
patches:
  - target: {kind: Kafka, name: clicks}
    patch: |-
      - op: add
        path: /spec/kafka/listeners/-
        value:
          name: regions
          port: 9094
          type: loadbalancer
          tls: false
          configuration:
            bootstrap:
              annotations: {external-dns.kubernetes.io/hostname: kafka.@domain@}
            brokers:
              - {broker: 0, advertisedHost: kafka-0.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-0.@domain@}}
              - {broker: 1, advertisedHost: kafka-1.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-1.@domain@}}
              - {broker: 2, advertisedHost: kafka-2.@domain@, annotations: {external-dns.kubernetes.io/hostname: kafka-2.@domain@}}
          networkPolicyPeers:
            - ipBlock: {cidr: @hub_pods@}
";

const MIRROR: &str = "\
# The clicks of all regions come into the hub's topic, partition by partition: batches are
# recognised by their identity, so that one that comes twice is counted once.
apiVersion: kafka.strimzi.io/v1
kind: KafkaMirrorMaker2
metadata:
  name: clicks-mirror
spec:
  version: 4.1.0
  replicas: 2
  target:
    alias: hub
    bootstrapServers: clicks-kafka-bootstrap:9092
    groupId: clicks-mirror
    configStorageTopic: clicks-mirror-configs
    offsetStorageTopic: clicks-mirror-offsets
    statusStorageTopic: clicks-mirror-status
  mirrors:
";

const MIRRORED: &str = "    - source:
        alias: @region@
        bootstrapServers: kafka.@domain@:9094
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
";

/// What a program shows when it is called, or calls: the names by which others know it.
const CERTIFICATE: &str = "\
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: @program@-tls
spec:
  secretName: @program@-tls
  duration: 24h
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [digital signature, server auth, client auth]
  dnsNames: [@names@]
  issuerRef: {kind: ClusterIssuer, name: waypost}
";

/// All files, by their path from [`FOLDER`].
pub(super) fn files(topology: &Topology, root: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    for deployment in &topology.deployments {
        let folder = format!("shard-maps/{}", deployment.name);
        let before = read(&format!("{FOLDER}/{folder}/shard-map.json")).ok();
        let map = shard_map(deployment, before.as_deref())?;
        files.insert(format!("{folder}/shard-map.json"), map);
        // Never by its hash: pods watch it, and are not started again for it.
        let generator = "configMapGenerator:\n  - name: shard-map\n    files: [shard-map.json]\n    \
                         options: {disableNameSuffixHash: true}\n";
        files.insert(
            format!("{folder}/kustomization.yaml"),
            format!("{HEAD}{generator}"),
        );
    }
    for (deployment, region) in topology.regions() {
        for (path, text) in overlay(topology, deployment, region) {
            files.insert(format!("overlays/{}/{path}", region.name), text);
        }
    }
    let gateway = read(&format!("{FOLDER}/base/gateway/deployment.yaml"))?;
    files.insert(
        "components/spool-volume/statefulset.yaml".to_owned(),
        spool::stateful(&gateway)?,
    );
    files.insert("base/observe/rules.yaml".to_owned(), rules(&read)?);
    Ok(files)
}

/// The rules of Prometheus, as its operator takes them.
fn rules(read: &impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut text = MADE.replace("deploy/topology.yaml", "deploy/prometheus/rules");
    for name in ["slo", "causes"] {
        let groups = read(&format!("deploy/prometheus/rules/{name}.yaml"))?;
        let lines = groups.lines().filter(|line| !line.starts_with('#'));
        let groups: String = lines
            .map(|line| format!("  {line}\n").replace("  \n", "\n"))
            .collect();
        text += &format!(
            "---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  \
             name: waypost-{name}\nspec:\n{groups}"
        );
    }
    Ok(text.replacen("---\n", "", 1))
}

/// Prefixes stay with whom they were given to first: a shard that is added has none until
/// they are moved to it, for two that begin with the same would both take them.
fn shard_map(deployment: &Deployment, before: Option<&str>) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", deployment.name);
    let shards = deployment.shards.iter().map(|shard| {
        let home = deployment
            .regions
            .iter()
            .find(|region| region.name == shard.home);
        Ok(shard_map::Shard {
            id: ShardId::parse(&shard.id).ok_or("no shard's name")?,
            region: shard.home.clone(),
            nodes: home
                .iter()
                .map(|home| format!("shard-{}.{}:7101", shard.id, home.domain))
                .collect(),
        })
    });
    let shards: Vec<_> = shards
        .collect::<Result<_, &str>>()
        .map_err(|error| failed(&error))?;
    let seed = ShardMap::seed(shards)
        .map_err(|error| failed(&error))?
        .to_json();
    let Some(before) = before else {
        return Ok(seed + "\n");
    };
    ShardMap::parse(before).map_err(|error| failed(&error))?;
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    let (mut map, before) = (
        parse(&seed).map_err(|error| failed(&error))?,
        parse(before).map_err(|error| failed(&error))?,
    );
    let prefixes: Map<String, Value> = deployment
        .shards
        .iter()
        .map(|shard| {
            let kept = before["prefixes"].get(&shard.id).cloned();
            (shard.id.clone(), kept.unwrap_or_else(|| "".into()))
        })
        .collect();
    map.insert("prefixes".to_owned(), prefixes.into());
    let text = serde_json::to_string(&map).map_err(|error| failed(&error))?;
    // Says so if a shard was taken out that has prefixes.
    let map = ShardMap::parse(&text).map_err(|error| failed(&error))?;
    Ok(map.to_json() + "\n")
}

fn overlay(
    topology: &Topology,
    deployment: &Deployment,
    region: &Region,
) -> BTreeMap<String, String> {
    let is_full = deployment.size == Size::Full;
    let mut files = BTreeMap::new();
    let mut stages = vec!["foundation", "data", "migrate", "app"];
    let namespace = format!("namespace: {}\n", topology.namespace);
    let mut stage = |name: &str, text: String| {
        files.insert(
            format!("{name}/kustomization.yaml"),
            format!("{HEAD}{namespace}{text}"),
        );
    };

    let mut foundation = fill(
        "resources:\n  - ../../../base/foundation\n  - ../../../shard-maps/@deployment@\n  - network-policies.yaml\n",
        &[("deployment", &deployment.name)],
    );
    if is_full {
        foundation = foundation.replace(
            "  - network-policies",
            "  - certificates.yaml\n  - network-policies",
        );
        foundation += "components: [../../../components/external-secrets]\n";
    }
    stage("foundation", foundation);

    let mut data =
        "resources:\n  - ../../../base/redis\n  - ../../../base/kafka\n  - postgres.yaml\n"
            .to_owned();
    if deployment.has(region, "mirror") {
        data += "  - mirror.yaml\n";
    }
    data += REGION_LABEL;
    let (name, tag) = topology
        .images
        .redis
        .rsplit_once(':')
        .unwrap_or((&topology.images.redis, "latest"));
    data += &format!("images:\n  - {{name: redis, newName: {name}, newTag: \"{tag}\"}}\n");
    if !is_full {
        data += "components: [../../../components/single-node-data]\n";
    } else if deployment.hub != region.name {
        data += FAR_LISTENER;
    }
    stage("data", data);

    stage(
        "migrate",
        format!("resources: [jobs.yaml]\nnameSuffix: -@tag_name@\n{REGION_LABEL}{IMAGES}"),
    );

    let mut app = "resources:\n  - ../../../base/gateway\n  - ../../../base/keygen\n".to_owned();
    if deployment.has(region, "analytics-consumer") {
        app += "  - ../../../base/analytics-consumer\n";
    }
    for shard in deployment.homed(region) {
        app += &format!("  - shards/{}\n", shard.id);
    }
    app += REGION_LABEL;
    app += IMAGES;
    let env = [
        ("WAYPOST_REGION", region.name.clone()),
        ("WAYPOST_BASE_URL", region.url.clone()),
        (
            "WAYPOST_ANALYTICS",
            format!("analytics-consumer.{}:7400", deployment.hub().domain),
        ),
    ];
    app += "configMapGenerator:\n  - name: gateway-env\n    literals:\n";
    for (name, value) in env {
        app += &format!("      - {name}={value}\n");
    }
    if !is_full {
        app += "components: [../../../components/single-node-app]\n";
    } else {
        app += "components: [../../../components/mtls]\n";
        if deployment.has(region, "analytics-consumer") {
            app += "patches:\n";
            app += &published("analytics-consumer", "analytics-consumer", region);
        }
    }
    if is_full {
        let volumes = "components: [../../../components/spool-volume, ../../../components/mtls]";
        let with_volumes = app
            .replace("  - shards/", "  - ../app/shards/")
            .replace("components: [../../../components/mtls]", volumes);
        stage("app-with-volumes", with_volumes);
    }
    stage("app", app);

    if is_full {
        stages.extend(["edge", "observe"]);
        let host = region.url.split("//").nth(1).unwrap_or_default();
        stage(
            "edge",
            format!(
                "resources: [../../../base/edge]\n{}",
                fill(ROUTE, &[("host", host)])
            ),
        );
        let mut observe = "resources:\n  - ../../../base/observe\n".to_owned();
        if deployment.has(region, "analytics-consumer") {
            observe += "  - ../../../base/observe-hub\n";
        }
        stage("observe", observe);
    }

    let mut resources = String::from("resources:\n");
    stages
        .iter()
        .for_each(|stage| resources += &format!("  - {stage}\n"));
    files.insert(
        "kustomization.yaml".to_owned(),
        format!("{HEAD}{resources}"),
    );
    files.insert(
        "foundation/network-policies.yaml".to_owned(),
        MADE.to_owned() + &policies::of(topology, deployment, region),
    );
    files.insert(
        "data/postgres.yaml".to_owned(),
        postgres::of(topology, deployment, region),
    );
    if deployment.has(region, "mirror") {
        files.insert("data/mirror.yaml".to_owned(), mirror(deployment, region));
    }
    if is_full {
        files.insert(
            "foundation/certificates.yaml".to_owned(),
            certificates(deployment, region),
        );
    }
    files.insert("migrate/jobs.yaml".to_owned(), jobs(deployment, region));
    for shard in deployment.homed(region) {
        let path = format!("app/shards/{}/kustomization.yaml", shard.id);
        files.insert(
            path,
            format!("{HEAD}{}", this_shard(shard, region, is_full)),
        );
    }

    let tag_name = topology.images.tag.replace(['.', '_', '+'], "-");
    let values = [
        ("region", &*region.name),
        ("domain", &region.domain),
        ("hub_pods", &deployment.hub().pods),
        ("registry", &topology.images.registry),
        ("tag", &topology.images.tag),
        ("tag_name", &tag_name),
    ];
    files
        .values_mut()
        .for_each(|text| *text = fill(text, &values));
    files
}

fn published(service: &str, host: &str, region: &Region) -> String {
    let host = format!("{host}.{}", region.domain);
    fill(PUBLISHED, &[("service", service), ("host", &host)])
}

fn this_shard(shard: &Shard, region: &Region, is_full: bool) -> String {
    let mut text = SHARD.to_owned();
    if is_full {
        let urls = shard.instances.iter();
        let urls: Vec<_> = urls
            .map(|number| fill(STANDBY, &[("number", &number.to_string())]))
            .collect();
        text += &fill(STANDBYS, &[("urls", &urls.join(","))]);
        text += &published("shard", &format!("shard-{}", shard.id), region);
    }
    fill(&text, &[("shard", &shard.id)])
}

fn certificates(deployment: &Deployment, region: &Region) -> String {
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
    let certificates = programs.iter().map(|(program, names)| {
        fill(
            CERTIFICATE,
            &[("program", program), ("names", &names.join(", "))],
        )
    });
    MADE.to_owned() + &certificates.collect::<String>().replacen("---\n", "", 1)
}

fn mirror(deployment: &Deployment, region: &Region) -> String {
    let sources = deployment.beside(region).map(|there| {
        let values = [("region", &*there.name), ("domain", &there.domain)];
        fill(MIRRORED, &values)
    });
    format!("{MADE}{MIRROR}{}{MIRROR_PODS}", sources.collect::<String>())
}

/// One for each database: a release's steps are taken before its first process starts.
fn jobs(deployment: &Deployment, region: &Region) -> String {
    let job = |name: &str, program: &str, env: &str, mount: &str, volume: &str| {
        let values = [
            ("env", env),
            ("mount", mount),
            ("volume", volume),
            ("program", program),
            ("name", name),
        ];
        fill(MIGRATION, &values)
    };
    let mut text = String::new();
    for shard in deployment.homed(region) {
        let env = format!(
            "            - {{name: WAYPOST_SHARD_ID, value: {}}}\n            \
             - {{name: WAYPOST_SHARD_MAP, value: /shard-map/shard-map.json}}\n",
            shard.id
        );
        let mount = "            - {name: shard-map, mountPath: /shard-map, readOnly: true}\n";
        let volume = "        - {name: shard-map, configMap: {name: shard-map}}\n";
        text += &job(&shard.id, "shard-node", &env, mount, volume);
    }
    text += &job("keygen", "keygen", "", "", "");
    if deployment.has(region, "analytics-consumer") {
        let env = "            - {name: WAYPOST_KAFKA, value: \"clicks-kafka-bootstrap:9092\"}\n";
        text += &job("analytics", "analytics-consumer", env, "", "");
    }
    MADE.to_owned() + &text.replacen("---\n", "", 1)
}
