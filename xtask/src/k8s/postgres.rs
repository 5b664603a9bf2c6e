//! The databases of a region: one Postgres for each shard that has its primary or its
//! standby there, one for keygen, and in the hub one for the rollups.

use super::fill;
use super::topology::{Deployment, Region, Size, Topology};

/// A database, and where it is.
struct Database<'a> {
    name: String,
    /// What its pods are labelled with; databases that are no shard's have none.
    shard: Option<&'a str>,
    home: &'a str,
    standby: Option<&'a str>,
    instances: &'a [u32],
}

const CLUSTER: &str = "\
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: @name@
spec:
  imageName: @image@
  instances: @count@
  inheritedMetadata:
    labels:
      waypost.dev/region: @region@
@shard@  storage:
    size: @size@
  postgresql:
    # Nobody is answered in the clear.
    pg_hba: [hostnossl all all all reject]
";

/// What one copy on one node leaves out.
const FULL: &str =
    "    # What is acknowledged is on two servers: with both standbys away, creates wait
    # rather than being lost later. Redirects go on.
    synchronous:
      method: any
      number: 1
      dataDurability: required
      failoverQuorum: true
    parameters:
      archive_timeout: 30s
      max_connections: \"200\"
  walStorage:
    size: 20Gi
  affinity:
    podAntiAffinityType: required
    topologyKey: topology.kubernetes.io/zone
  resources:
    requests: {cpu: \"2\", memory: 4Gi}
    limits: {memory: 4Gi}
  certificates:
    serverTLSSecret: @name@-server
    serverCASecret: @name@-server
    replicationTLSSecret: postgres-replication
    clientCASecret: postgres-replication
  plugins:
    - name: barman-cloud.cloudnative-pg.io
      isWALArchiver: true
      parameters: {barmanObjectName: backups-@region@, serverName: @name@-@region@}
";

const REPLICATED: &str =
    "  # Streams from the other region, and reads its archive where the stream broke. Which of
  # them is the primary follows from `home` in deploy/topology.yaml.
  replica:
    self: @name@-@region@
    primary: @name@-@home@
    source: @name@-@other@
  externalClusters:
";

const EXTERNAL: &str = "    - name: @name@-@region@
      connectionParameters:
        host: @name@-primary.@domain@
        user: streaming_replica
        dbname: postgres
        sslmode: verify-full
      sslKey: {name: postgres-replication, key: tls.key}
      sslCert: {name: postgres-replication, key: tls.crt}
      sslRootCert: {name: postgres-replication, key: ca.crt}
      plugin:
        name: barman-cloud.cloudnative-pg.io
        parameters: {barmanObjectName: backups-@region@, serverName: @name@-@region@}
";

const FRESH: &str = "  bootstrap:
    initdb: {database: waypost, owner: waypost}
";

const COPIED: &str = "  bootstrap:
    pg_basebackup: {source: @name@-@other@, database: waypost, owner: waypost}
";

const SERVER_CERTIFICATE: &str = "\
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: @name@-server
spec:
  secretName: @name@-server
  # Read again by the operator when it changes.
  secretTemplate:
    labels: {cnpg.io/reload: \"\"}
  usages: [server auth]
  duration: 720h
  renewBefore: 240h
  dnsNames:
    - @name@-rw
    - @name@-rw.@namespace@
    - @name@-rw.@namespace@.svc
    - @name@-r
    - @name@-ro
@instances@    - @name@-primary.@domain@
  issuerRef: {kind: ClusterIssuer, name: waypost}
---
apiVersion: postgresql.cnpg.io/v1
kind: ScheduledBackup
metadata:
  name: @name@
spec:
  # Seconds first: every night at a quarter past two.
  schedule: \"0 15 2 * * *\"
  backupOwnerReference: self
  cluster: {name: @name@}
  method: plugin
  pluginConfiguration: {name: barman-cloud.cloudnative-pg.io}
---
# What the other region streams from: the operator's own Services have addresses that are
# routed in their cluster alone.
apiVersion: v1
kind: Service
metadata:
  name: @name@-primary
  annotations:
    external-dns.kubernetes.io/hostname: @name@-primary.@domain@
spec:
  clusterIP: None
  selector: {cnpg.io/cluster: @name@, cnpg.io/instanceRole: primary}
  ports:
    - {name: postgres, port: 5432, targetPort: 5432}
";

const INSTANCE: &str = "\
---
apiVersion: v1
kind: Service
metadata:
  name: @name@-@number@
spec:
  clusterIP: None
  selector: {cnpg.io/instanceName: @name@-@number@}
  ports:
    - {name: postgres, port: 5432, targetPort: 5432}
";

const OBJECT_STORE: &str = "\
---
apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata:
  name: backups-@region@
spec:
  retentionPolicy: 30d
  configuration:
    destinationPath: @path@
    s3Credentials:
      accessKeyId: {name: backup-store, key: access-key-id}
      secretAccessKey: {name: backup-store, key: secret-access-key}
    wal: {compression: gzip}
    data: {compression: gzip}
";

const REPLICATION_CERTIFICATE: &str = "\
---
# Who a standby is to its primary, here and in the other region.
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: postgres-replication
spec:
  secretName: postgres-replication
  secretTemplate:
    labels: {cnpg.io/reload: \"\"}
  usages: [client auth]
  commonName: streaming_replica
  duration: 720h
  renewBefore: 240h
  issuerRef: {kind: ClusterIssuer, name: waypost}
";

pub(super) fn of(topology: &Topology, deployment: &Deployment, region: &Region) -> String {
    let mut parts: Vec<String> = databases(deployment, region)
        .iter()
        .map(|database| cluster(topology, deployment, region, database))
        .collect();
    if deployment.size == Size::Full {
        for region in &deployment.regions {
            let path = region.backups.as_deref().unwrap_or_default();
            parts.push(fill(
                OBJECT_STORE,
                &[("region", &region.name), ("path", path)],
            ));
        }
        parts.push(REPLICATION_CERTIFICATE.to_owned());
    }
    super::MADE.to_owned() + &parts.join("").replacen("---\n", "", 1)
}

/// Those that are in this region.
fn databases<'a>(deployment: &'a Deployment, region: &'a Region) -> Vec<Database<'a>> {
    let mut all: Vec<Database<'_>> = deployment
        .shards
        .iter()
        .map(|shard| Database {
            name: format!("pg-{}", shard.id),
            shard: Some(&shard.id),
            home: &shard.home,
            standby: shard.standby.as_deref(),
            instances: &shard.instances,
        })
        .collect();
    let alone = |name: &str| Database {
        name: name.to_owned(),
        shard: None,
        home: &region.name,
        standby: None,
        instances: &[1, 2, 3],
    };
    all.push(alone("pg-keygen"));
    if deployment.has(region, "analytics-consumer") {
        all.push(alone("pg-analytics"));
    }
    let here = Some(&*region.name);
    all.retain(|database| Some(database.home) == here || database.standby == here);
    all
}

fn cluster(
    topology: &Topology,
    deployment: &Deployment,
    region: &Region,
    database: &Database<'_>,
) -> String {
    let is_full = deployment.size == Size::Full;
    let is_home = database.home == region.name;
    let other = if is_home {
        database.standby
    } else {
        Some(database.home)
    };
    let mut template = format!("---\n{CLUSTER}");
    if is_full {
        template += FULL;
    }
    if other.is_some() {
        template += REPLICATED;
        for place in &deployment.regions {
            if place.name == database.home || Some(&*place.name) == database.standby {
                let there = [("region", &*place.name), ("domain", &place.domain)];
                template += &fill(EXTERNAL, &there);
            }
        }
    }
    template += if is_home { FRESH } else { COPIED };
    let mut instances = String::new();
    if is_full {
        template += SERVER_CERTIFICATE;
        for number in database.instances {
            let number = [("number", &*number.to_string())];
            template += &fill(INSTANCE, &number);
            instances += &fill("    - @name@-@number@\n", &number);
        }
    }
    let shard = database
        .shard
        .map(|id| format!("      waypost.dev/shard: {id}\n"));
    let count = if is_full { database.instances.len() } else { 1 };
    let text = fill(&template, &[("instances", &instances)]);
    fill(
        &text,
        &[
            ("name", &database.name),
            ("image", &topology.images.postgres),
            ("namespace", &topology.namespace),
            ("count", &count.to_string()),
            ("region", &region.name),
            ("home", database.home),
            ("other", other.unwrap_or_default()),
            ("domain", &region.domain),
            ("shard", &shard.unwrap_or_default()),
            ("size", if is_full { "100Gi" } else { "1Gi" }),
        ],
    )
}
