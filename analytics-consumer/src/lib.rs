//! Counts every click once: from Kafka to rollups, and answers statistics.
