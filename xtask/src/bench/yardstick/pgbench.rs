//! `pgbench`: single statements, prepared, at the very server that our shard uses.

use std::fs;
use std::process::Command;

use waypost_testbed::Sandbox;
use waypost_testbed::cluster::Shard;

use crate::Error;

/// As the goal has it.
const CLIENTS: &str = "16";

/// Copies of the links under slugs that pgbench can count: it knows numbers only.
/// The rows are in the order of the original, and both tables are equally well known
/// to the planner.
const COPY: &str = "
    CREATE TABLE yardstick (LIKE links INCLUDING ALL);
    INSERT INTO yardstick SELECT
        version, created_at, updated_at, valid_since, valid_until, max_visits, domain,
        redirect_status, state, forward_query, link_id, create_id,
        (10000000 + row_number() OVER ())::text, tenant, long_url, signature, title, tags,
        password_hash, source, change_id
    FROM links;";

/// Apart, as it runs in no transaction.
const VACUUM: [&str; 2] = ["VACUUM ANALYZE links, yardstick", "CHECKPOINT"];

/// The destination alone: the least that a redirect needs.
const SELECT: &str = "\
\\set n random(10000001, 10000000 + {rows})
SELECT long_url FROM yardstick WHERE domain = 0 AND slug = :n;
";

/// A row like those of ours, with the same answer to a slug that is taken.
const INSERT: &str = "\
\\set n random(10000000, 99999999)
INSERT INTO yardstick (version, created_at, updated_at, domain, redirect_status, state, \
forward_query, link_id, create_id, slug, tenant, long_url, signature) VALUES (1, now(), now(), 0, \
302, 1, false, '2c5ea4c0-4067-4c0e-8b3b-0123456789ab', '2c5ea4c0-4067-4c0e-8b3b-0123456789ab', \
:n, 'default', 'https://example.com/created/000000000001?utm_source=newsletter', \
'\\\\x0123456789abcdef0123456789abcdef0123') ON CONFLICT DO NOTHING;
";

/// One statement, again and again.
#[derive(Debug)]
pub(crate) struct Pgbench {
    url: String,
    script: String,
}

impl Pgbench {
    /// Point reads of a copy of the shard's links, of which there are so many.
    pub(crate) fn select(sandbox: &Sandbox, shard: &Shard, rows: usize) -> Result<Self, Error> {
        eprintln!("xtask: copies {rows} rows for pgbench");
        shard.postgres.query(Shard::DATABASE, COPY)?;
        for statement in VACUUM {
            shard.postgres.query(Shard::DATABASE, statement)?;
        }
        let script = SELECT.replace("{rows}", &rows.to_string());
        Self::write(sandbox, shard, "select.sql", &script)
    }

    /// Inserts of one row a transaction into a table like that of the links.
    pub(crate) fn insert(sandbox: &Sandbox, shard: &Shard) -> Result<Self, Error> {
        let table = "CREATE TABLE yardstick (LIKE links INCLUDING ALL)";
        shard.postgres.query(Shard::DATABASE, table)?;
        Self::write(sandbox, shard, "insert.sql", INSERT)
    }

    fn write(sandbox: &Sandbox, shard: &Shard, name: &str, text: &str) -> Result<Self, Error> {
        let script = sandbox.folder().join(name);
        fs::write(&script, text)
            .map_err(|error| Error::Step(format!("{name} cannot be written: {error}")))?;
        Ok(Self {
            url: shard.url(),
            script: script.display().to_string(),
        })
    }

    /// Statements a second, over so many seconds.
    pub(crate) fn turn(&self, seconds: u64) -> Result<f64, Error> {
        let output = super::output(
            Command::new("pgbench")
                .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "1"])
                .args(["--client", CLIENTS, "--time", &seconds.to_string()])
                .args(["--file", &self.script, &self.url]),
        )?;
        rate(&output).ok_or_else(|| Error::Step(format!("pgbench printed {output}")))
    }
}

/// Nothing if a transaction failed: what is not done is not fast.
fn rate(output: &str) -> Option<f64> {
    let value_of = |key: &str| output.lines().find_map(|line| line.strip_prefix(key));
    let failed = value_of("number of failed transactions: ")?;
    let rate = value_of("tps = ")?.split(' ').next()?.parse().ok()?;
    failed.starts_with("0 ").then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "number of failed transactions: 0 (0.000%)\n\
        latency average = 1.2 ms\ntps = 12345.6 (without initial connection time)\n";

    #[test]
    fn a_rate_counts_only_where_nothing_failed() {
        assert_eq!(rate(OUTPUT), Some(12_345.6));
        let failed = OUTPUT.replace(": 0 (", ": 10 (");
        assert_eq!(rate(&failed), None);
        assert_eq!(rate("pgbench: error\n"), None);
    }
}
