//! Flotilla's protobuf files and the code generated from them. No logic but how messages are encoded ([`codec`]) and
//! when they are written ([`corked`]).
//!
//! The `.proto` files beside this crate are the reference; their comments are the documentation.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod codec;
pub mod corked;

/// The public API, one file per service.
pub mod v1 {
    tonic::include_proto!("flotilla.v1");
}

/// What nodes say to each other, replicate and store. Never reflected, never seen by clients.
pub mod internal {
    /// The first version of the internal messages.
    pub mod v1 {
        tonic::include_proto!("flotilla.internal.v1");
    }
}

/// All public files as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Metadata of a request (any value) that is meant for the node that it reaches: that node serves it, or says that it
/// does not lead, but never passes it on. Nodes that forward set it, and clients that look for leaders themselves.
pub const DIRECT: &str = "flotilla-direct";

/// Metadata of a request that names the cluster (a UUID, 36 characters) that it is meant for: a node of another cluster
/// refuses it.
pub const CLUSTER_ID: &str = "flotilla-cluster-id";
