//! The HTTP edge: redirects, the API, the caches, the click spool.
pub mod clicks;
