//! Leases of unique, unguessable slugs from durable counters.
