//! The storage node of one shard: links in Postgres or SQLite, over gRPC.

pub mod store;
