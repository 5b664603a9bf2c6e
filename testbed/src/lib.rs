//! A real local cluster on loopback: starts the parts, breaks them, removes them.
