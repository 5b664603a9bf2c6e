//! What Waypost's processes say to each other: gRPC services, the click event,
//! the cached value; and the way between these messages and the domain's types.

pub mod auth;
pub mod cache;
pub mod convert;
pub mod rpc_times;
pub mod transport;

pub use generated::analytics::v1 as analytics;
pub use generated::click::v1 as click;
pub use generated::handover::v1 as handover;
pub use generated::keygen::v1 as keygen;
pub use generated::link::v1 as link;

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated code, in modules named after its packages"
)]
mod generated {
    pub mod link {
        pub mod v1 {
            tonic::include_proto!("waypost.link.v1");
        }
    }
    pub mod handover {
        pub mod v1 {
            tonic::include_proto!("waypost.handover.v1");
        }
    }
    pub mod keygen {
        pub mod v1 {
            tonic::include_proto!("waypost.keygen.v1");
        }
    }
    pub mod click {
        pub mod v1 {
            tonic::include_proto!("waypost.click.v1");
        }
    }
    pub mod analytics {
        pub mod v1 {
            tonic::include_proto!("waypost.analytics.v1");
        }
    }
    pub mod cache {
        pub mod v1 {
            tonic::include_proto!("waypost.cache.v1");
        }
    }
}

/// The descriptors of all services, for gRPC reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
