//! Settings of Kafka's client that say how brokers are reached, in a file of their own: it
//! may hold a password.

use std::path::PathBuf;

use crate::config::Invalid;

/// What may be set: how connections are made and secured. All else is ours to say: clicks
/// are counted once because of it.
const ALLOWED: [&str; 6] = [
    "security.protocol",
    "ssl.",
    "sasl.",
    "socket.",
    "broker.address.family",
    "client.rack",
];

/// How Kafka is reached, beside where it is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KafkaOptions {
    /// File with settings of librdkafka, one name=value a line: security.protocol, ssl.*,
    /// sasl.*, socket.*, broker.address.family, client.rack; # begins a comment. Read at
    /// the start, as are the certificates that it names
    #[arg(long, env = "WAYPOST_KAFKA_SETTINGS", value_name = "FILE")]
    pub kafka_settings: Option<PathBuf>,
}

impl KafkaOptions {
    /// Reads the settings, names and values.
    ///
    /// # Errors
    /// If the file cannot be read, or sets what is not to be set. Never tells a value.
    pub fn read(&self) -> Result<Vec<(String, String)>, Invalid> {
        let Some(file) = &self.kafka_settings else {
            return Ok(Vec::new());
        };
        let invalid = |problem: String| Invalid {
            option: "--kafka-settings",
            problem,
        };
        let text = std::fs::read_to_string(file)
            .map_err(|error| invalid(format!("cannot read {}: {error}", file.display())))?;
        let in_file =
            |(line, problem)| invalid(format!("{}, line {line}: {problem}", file.display()));
        parse(&text).map_err(in_file)
    }
}

fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| setting(line).map_err(|problem| (index + 1, problem)))
        .collect()
}

fn setting(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once('=').ok_or("expected name=value")?;
    let (name, value) = (name.trim(), value.trim());
    let is_allowed = ALLOWED
        .iter()
        .any(|allowed| name == *allowed || (allowed.ends_with('.') && name.starts_with(allowed)));
    if !is_allowed {
        let allowed = ALLOWED.join(", ");
        return Err(format!(
            "\"{name}\" is none of those that may be set: {allowed}"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_brokers_are_reached_may_be_set_and_how_clicks_are_counted_may_not() {
        let text = "# of Strimzi\nsecurity.protocol = ssl\n\nssl.ca.location=/etc/kafka/ca.crt\n\
                    sasl.password=a=b\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = vec![
            pair("security.protocol", "ssl"),
            pair("ssl.ca.location", "/etc/kafka/ca.crt"),
            pair("sasl.password", "a=b"),
        ];
        assert_eq!(parse(text), Ok(expected));
        for wrong in [
            "group.id=other",
            "enable.idempotence=false",
            "security.protocols=x",
        ] {
            let (line, problem) = parse(&format!("# first\n{wrong}")).unwrap_err();
            assert_eq!(line, 2);
            assert!(problem.contains("is none of those"), "{problem}");
        }
        let (_, problem) = parse("sasl.password hunter2").unwrap_err();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}
