//! The testbed's own parts do what tests of the cluster rest on.

mod postgres;
