//! A cluster's first entry: its id, and what holds where nothing is set.
//! Invariant: a cluster has one id for ever, and what decides about loss comes from the metadata and not from a node's file.

use madang_actors::prng::Prng;
use madang_protocol::types::Uuid;

use super::draft::Draft;
use super::records::{ClusterRecord, MetadataRecord};
use super::replay::default_record;
use super::{Controller, ControllerEffect};
use crate::configs::{BrokerConfig, CLUSTER_KEYS};
use crate::metadata::MetadataImage;

impl Controller {
    /// The first leader of a new cluster gives it its id, and says what holds where nothing is set.
    pub(super) fn found_cluster(&mut self, rng: &mut Prng, effects: &mut Vec<ControllerEffect>) -> Result<(), String> {
        if !self.quorum.is_leader() || self.is_founded(&self.image) {
            return Ok(());
        }
        let pending = self.pending_image()?;
        if self.is_founded(&pending) {
            return Ok(());
        }
        let cluster_id = self.cluster_id.unwrap_or_else(|| Uuid::from_random(rng.next_u64(), rng.next_u64()));
        let (records, image) = found(&pending, &self.defaults, self.quorum.is_lone(), cluster_id, rng);
        // Refused only when the leadership has just ended; the next leader does it then.
        drop(self.append(&records, image));
        self.settle(rng, effects)
    }

    fn is_founded(&self, image: &MetadataImage) -> bool {
        let said = new_defaults(image, &self.defaults, self.quorum.is_lone()).next().is_none();
        said && !image.cluster_id().is_zero()
    }
}

/// What is not as it should be of what holds where nothing is set: the keys, and their values in this controller's file. It is the first
/// controller's file that counts; a lone one's at each of its starts, as there is no other to differ.
fn new_defaults<'a>(
    image: &'a MetadataImage,
    file: &'a BrokerConfig,
    lone: bool,
) -> impl Iterator<Item = (&'static str, Option<&'a str>)> + 'a {
    let own = CLUSTER_KEYS.into_iter().map(|key| (key, file.set_value(key)));
    own.filter(move |(key, own)| image.default_of(key).is_none_or(|known| lone && known != *own))
}

pub(super) fn found(
    image: &MetadataImage,
    file: &BrokerConfig,
    lone: bool,
    cluster_id: Uuid,
    rng: &mut Prng,
) -> (Vec<MetadataRecord>, MetadataImage) {
    let mut draft = Draft::new(image, file, rng);
    if image.cluster_id().is_zero() {
        draft.push(MetadataRecord::Cluster(ClusterRecord { cluster_id: cluster_id.0 }));
    }
    for (key, value) in new_defaults(image, file, lone) {
        draft.push(MetadataRecord::Default(default_record(key, value)));
    }
    draft.follow_rules();
    (draft.records, draft.image)
}
