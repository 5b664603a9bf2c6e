//! What is made out of the topology: an overlay for each region, in stages that are
//! applied one after the other, and the few files that follow from others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::topology::{Deployment, PROGRAMS, Region, Shard, Size, Topology};
use super::{MADE, certificates, fill, kafka, policies, postgres, shard_maps, spool};

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
                  - {name: WAYPOST_POSTGRES_URL, value: \"postgres://$(PG_USER):$(PG_PASSWORD)@pg-@shard@-rw:5432/waypost?sslmode=verify-full&sslrootcert=/postgres/ca.crt\"}
@standbys@                volumeMounts:
                  - {name: postgres, mountPath: /postgres, readOnly: true}
            volumes:
              - name: postgres
                secret:
                  secretName: pg-@shard@-@authority@
                  items: [{key: ca.crt, path: ca.crt}]
                  defaultMode: 0440
";

/// All servers of the shard's Postgres, each by itself: which of them is the primary
/// changes. The rest of their URLs is that of the primary's.
const STANDBYS: &str =
    "                  - {name: WAYPOST_POSTGRES_REPLICA_URLS, value: \"@urls@\"}\n";
const STANDBY: &str = "postgres://pg-@shard@-@number@:5432";

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
            - {name: WAYPOST_POSTGRES_URL, value: \"postgres://$(PG_USER):$(PG_PASSWORD)@pg-@name@-rw:5432/waypost?sslmode=verify-full&sslrootcert=/postgres/ca.crt\"}
@env@          resources:
            requests: {cpu: 50m, memory: 128Mi, ephemeral-storage: 16Mi}
            limits: {memory: 128Mi, ephemeral-storage: 16Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: secrets, mountPath: /secrets, readOnly: true}
            - {name: postgres, mountPath: /postgres, readOnly: true}
@mount@      volumes:
        - {name: secrets, secret: {secretName: @program@-secrets, defaultMode: 0440}}
        - {name: postgres, secret: {secretName: pg-@name@-@authority@, items: [{key: ca.crt, path: ca.crt}], defaultMode: 0440}}
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
        let map = shard_maps::seed(deployment, before.as_deref())?;
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
    if deployment.has(region, "analytics-consumer") {
        data += "  - ../../../base/kafka-hub\n";
    }
    if deployment.has(region, "mirror") {
        data += "  - mirror.yaml\n";
    } else if region.name != deployment.hub {
        data += "  - mirrored.yaml\n";
    }
    data += REGION_LABEL;
    data += &format!("images:\n{}", image("redis", &topology.images.redis));
    if !is_full {
        data += "components: [../../../components/single-node-data]\n";
    } else {
        data += "components: [../../../components/redis-tls]\n";
        if deployment.hub != region.name {
            data += kafka::FAR_LISTENER;
        }
    }
    stage("data", data);

    stage(
        "migrate",
        format!(
            "resources: [jobs.yaml]\nnameSuffix: -@tag_name@\n{REGION_LABEL}{}",
            images(topology, region)
        ),
    );

    let mut app = "resources:\n  - ../../../base/kafka-client\n  - ../../../base/gateway\n  - \
                   ../../../base/keygen\n"
        .to_owned();
    if deployment.has(region, "analytics-consumer") {
        app += "  - ../../../base/analytics-consumer\n";
    }
    for shard in deployment.homed(region) {
        app += &format!("  - shards/{}\n", shard.id);
    }
    app += REGION_LABEL;
    app += &images(topology, region);
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
        files.insert(
            "data/mirror.yaml".to_owned(),
            kafka::mirror(deployment, region),
        );
    } else if region.name != deployment.hub {
        files.insert("data/mirrored.yaml".to_owned(), kafka::mirrored());
    }
    if is_full {
        files.insert(
            "foundation/certificates.yaml".to_owned(),
            certificates::of(deployment, region),
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

    let tag_name = topology.release(region).tag.replace(['.', '_', '+'], "-");
    let values = [
        ("region", &*region.name),
        ("domain", &region.domain),
        ("hub_pods", &deployment.hub().pods),
        ("tag_name", &tag_name),
        ("authority", authority(is_full)),
    ];
    files
        .values_mut()
        .for_each(|text| *text = fill(text, &values));
    files
}

/// Our programs' in this region.
fn images(topology: &Topology, region: &Region) -> String {
    let (registry, release) = (&topology.images.registry, topology.release(region));
    let images = PROGRAMS.iter().map(|program| {
        let name = format!("waypost-{program}");
        let version = match release.digests.get(*program) {
            Some(digest) => format!("@{digest}"),
            None => format!(":{}", release.tag),
        };
        image(&name, &format!("{registry}/{name}{version}"))
    });
    format!("images:\n{}", images.collect::<String>())
}

/// What a name in the manifests stands for: a digest, where the reference has one.
fn image(name: &str, reference: &str) -> String {
    let (place, digest) = match reference.split_once('@') {
        Some((place, digest)) => (place, Some(digest)),
        None => (reference, None),
    };
    // A colon before a slash is that of a port.
    let tag = place.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (place, tag) = tag.unwrap_or((place, "latest"));
    let version = match digest {
        Some(digest) => format!("digest: \"{digest}\""),
        None => format!("newTag: \"{tag}\""),
    };
    format!("  - {{name: {name}, newName: {place}, {version}}}\n")
}

fn published(service: &str, host: &str, region: &Region) -> String {
    let host = format!("{host}.{}", region.domain);
    fill(PUBLISHED, &[("service", service), ("host", &host)])
}

fn this_shard(shard: &Shard, region: &Region, is_full: bool) -> String {
    let mut text = SHARD.to_owned();
    let mut standbys = String::new();
    if is_full {
        let urls = shard.instances.iter();
        let urls: Vec<_> = urls
            .map(|number| fill(STANDBY, &[("number", &number.to_string())]))
            .collect();
        standbys = fill(STANDBYS, &[("urls", &urls.join(","))]);
        text += &published("shard", &format!("shard-{}", shard.id), region);
    }
    let text = fill(&text, &[("standbys", &standbys)]);
    fill(&text, &[("shard", &shard.id)])
}

/// How the Secret ends in which the authority of a database's certificate is: of one that
/// cert-manager made, or of the one that the operator of Postgres makes where there is none.
fn authority(is_full: bool) -> &'static str {
    if is_full { "server" } else { "ca" }
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
        // Asked for, and not called while it migrates.
        let env = "            - {name: WAYPOST_KAFKA, value: \"clicks-kafka-bootstrap:9093\"}\n";
        text += &job("analytics", "analytics-consumer", env, "", "");
    }
    MADE.to_owned() + &text.replacen("---\n", "", 1)
}
