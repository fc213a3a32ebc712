//! Changes of reservations: asked for by hosts through the targets, so they do not wait for administrators.

use super::Control;
use crate::base::VolumeId;
use crate::cluster::command::Command;
use crate::cluster::model::Reserved;
use crate::cluster::node::Node;
use crate::volume::reserve::{Nexus, Op, Refused, Told};
use std::sync::Arc;

impl<N: Node> Control<N> {
    /// What nexus `who` asks of a volume's reservations; returns whom it affects. When it returns, the new value is
    /// durable if it must be (APTPL), and every core checks commands against it.
    ///
    /// This does not wait for the mutating call under way, which may itself wait for the very command that asks: the
    /// check, the next state and the journal are one step between two awaits.
    pub async fn reserve(&self, volume: VolumeId, who: &Nexus, op: &Op) -> Result<Vec<Told>, Refused> {
        let store = match self.volumes.borrow().get(&volume) {
            Some((store, _)) => Some(*store),
            None if self.devices.borrow().contains_key(&volume) => None,
            None => return Err(Refused::Gone),
        };
        let old = self.state().reservations(volume);
        let applied = old.apply(who, op)?;
        if applied.next != *old {
            let reserved = Reserved { store, value: Arc::new(applied.next) };
            if let Err(e) = self.record(&Command::SetReservations(volume, reserved)) {
                tracing::error!("reservations of #{}: {e}", volume.0);
                return Err(Refused::Unavailable);
            }
            self.node.reserve(self.state()).await;
        }
        Ok(applied.told)
    }
}
