//! The life of a process: configuration, logs, traces, the admin port, drain.
