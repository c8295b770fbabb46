//! What the cluster agrees on: an immutable image of it, and what changed between two images.

mod delta;
mod digest;
mod image;

pub use delta::{MetadataDelta, TopicChange};
pub(crate) use digest::Fnv;
pub(crate) use image::metric_name;
pub use image::{
    BrokerRegistration, ConfigMap, ConfigResource, ConfigResourceType, Endpoint, MAX_TOMBSTONES, MetadataImage,
    NO_LEADER, PartitionImage, ReportedLoss, SecurityProtocol, TopicImage, is_internal,
};
