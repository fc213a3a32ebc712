//! Asynchronous events (NVM Express Base Specification 2.0, 5.2): a few requests wait in the controller; each that
//! comes back is looked at, its log page read (which lets the controller tell the next of its kind), and sent again.

use super::{Admin, EVENT_CID, World, words};
use crate::device::nvme::error::ControllerError;
use crate::device::nvme::facts::NamespaceFacts;
use crate::wire::nvme::admin::Feature;
use crate::wire::nvme::feature::{Event, fid};
use crate::wire::nvme::log::lid;
use crate::wire::nvme::{Sgl, Sqe, admin_op, sc};

/// Requests kept in the controller at most.
const ARMED_MAX: u16 = 4;
/// Bits of the critical warning, in words (SMART, byte 0).
const WARNINGS: [&str; 6] = [
    "spare capacity is below its threshold",
    "a temperature is outside its limits",
    "reliability is degraded by media errors",
    "the medium is read only",
    "the backup of the volatile memory failed",
    "the persistent memory region is unreliable",
];

impl Admin {
    /// Requests kept in this controller.
    fn events_max(&self) -> u16 {
        self.facts.as_ref().map_or(0, |f| f.events.min(ARMED_MAX))
    }

    /// Says which events are wanted, and sends the requests.
    pub(super) fn arm_events(&mut self, world: &mut dyn World) {
        let set = Feature::set(0, fid::EVENT_CONFIG, 0, self.facts().event_config);
        if let Err(error) = self.command(set, false, "Set Features (Asynchronous Event Configuration)", world) {
            tracing::warn!(%error, "NVMe controller: only some events will be seen");
        }
        self.rearm();
    }

    fn rearm(&mut self) {
        for number in (0..self.events_max()).filter(|n| self.armed >> n & 1 == 0) {
            let mut sqe = Sqe::new(admin_op::ASYNC_EVENT, EVENT_CID + number, 0, Sgl::NONE);
            sqe.flags = 0;
            self.ring.push(&words(&sqe));
        }
        self.armed = (1 << self.events_max()) - 1;
        self.ring.tell();
    }

    /// Looks at what the controller told.
    pub(super) fn handle_events(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        while let Some(dword) = self.events.pop_front() {
            let event = Event::of(dword);
            let looked = match (event.kind, event.info) {
                (0, _) => self.log_errors(world),
                (1, _) => self.log_health(world),
                (2, 0x00) => self.namespaces_changed(world),
                _ => {
                    tracing::info!(kind = event.kind, info = event.info, "NVMe controller: an event");
                    self.log(event.lid, 512, world).map(drop)
                }
            };
            match looked {
                // A log page it does not have.
                Err(ControllerError::Command { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        self.rearm();
        Ok(())
    }

    fn log_errors(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        let newest = self.errors(world)?.into_iter().next();
        tracing::warn!(?newest, "NVMe controller: it reports an error");
        Ok(())
    }

    fn log_health(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        let smart = self.smart(world)?;
        let named = |(bit, text): (usize, &&'static str)| (smart.critical >> bit & 1 == 1).then_some(*text);
        let warnings: Vec<&str> = WARNINGS.iter().enumerate().filter_map(named).collect();
        tracing::error!(warnings = warnings.join("; "), kelvin = smart.temperature.get(), "NVMe controller: health");
        Ok(())
    }

    fn namespaces_changed(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        // Reading the list lets the controller tell the next change; which ones changed is seen by looking.
        self.log(lid::CHANGED_NAMESPACES, 4096, world)?;
        self.rescan(world)
    }

    /// Looks at the namespaces in use again: their size, and whether they are there.
    pub fn rescan(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        for namespace in self.shared.namespaces() {
            let now = match self.identify_namespace(namespace.nsid, world) {
                Ok(id) => NamespaceFacts::of(namespace.nsid, &id),
                Err(ControllerError::Command { status: sc::INVALID_NAMESPACE, .. }) => {
                    Err(crate::device::nvme::Format::Empty)
                }
                Err(error) => return Err(error),
            };
            match now {
                Ok(facts) if facts.block_shift == namespace.block_shift => {
                    let was = namespace.grow(facts.bytes());
                    if facts.bytes() != was {
                        let (nsid, now) = (namespace.nsid, facts.bytes());
                        tracing::warn!(nsid, was, now, "NVMe namespace: its size changed");
                    }
                }
                other => {
                    tracing::error!(nsid = namespace.nsid, now = ?other, "NVMe namespace: taken away or formatted");
                    namespace.kill();
                }
            }
        }
        Ok(())
    }
}
