//! Get Features and Set Features (base specification, "Features").

use super::admin::Reply;
use super::message::ControllerRef;
use super::target::Target;
use crate::mem::Pool;
use crate::wire::nvme::admin::{Feature, Select};
use crate::wire::nvme::feature::{event_config, fid, queue_counts, queue_counts_dword};
use crate::wire::nvme::{Sgl, sc};

/// Features that a host may set and read back, and that change nothing on a controller of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Values {
    arbitration: u32,
    power: u32,
    temperature: Option<u32>,
    error_recovery: u32,
    write_atomicity: u32,
}

/// Temperature Threshold by default: over, composite temperature, the recommended warning value.
const TEMPERATURE: u32 = 0x157;

impl Target {
    /// Set Features.
    pub(super) fn set_feature(&mut self, controller: ControllerRef, feature: Feature) -> Reply {
        let config = self.config.clone();
        let Some(owner) = self.controllers.get(controller) else { return sc::INTERNAL_ERROR.into() };
        if feature.save {
            return sc::FEATURE_NOT_SAVEABLE.into();
        }
        let value = feature.value;
        match (feature.fid, owner.discovery) {
            (fid::KEEP_ALIVE, _) => match super::connect::keep_alive(&config, value) {
                Ok(kato) => owner.kato = kato,
                Err((code, _)) => return code.into(),
            },
            (fid::EVENT_CONFIG, true) => owner.events.config = value & event_config::DISCOVERY,
            (fid::EVENT_CONFIG, false) => {
                let known = event_config::NAMESPACE | event_config::SMART;
                owner.events.config = value & known;
                self.eventful = true;
            }
            (fid::QUEUES, false) => {
                let (submission, completion) = queue_counts(value);
                if submission > 0xffff || completion > 0xffff {
                    return sc::INVALID_FIELD.into();
                }
                if !owner.queues.is_empty() {
                    return sc::SEQUENCE_ERROR.into();
                }
                let granted = submission.min(completion).min(u32::from(owner.queues_max));
                owner.queues_granted = granted as u16;
                return Reply::Done(u64::from(queue_counts_dword(granted, granted)));
            }
            (fid::ARBITRATION, false) => owner.features.arbitration = value,
            (fid::POWER, false) => {
                // One power state.
                if value & 0x1f != 0 {
                    return sc::INVALID_FIELD.into();
                }
                owner.features.power = value;
            }
            (fid::TEMPERATURE, false) => owner.features.temperature = Some(value),
            (fid::ERROR_RECOVERY, false) => {
                // Deallocated blocks read as zeroes; an error for them can not be had.
                if value & 1 << 16 != 0 {
                    return sc::INVALID_FIELD.into();
                }
                owner.features.error_recovery = value & 0xffff;
            }
            (fid::WRITE_ATOMICITY, false) => owner.features.write_atomicity = value & 1,
            (fid::VOLATILE_CACHE, false) => return self.set_cache(controller, value),
            (fid::HOST_ID, false) => return sc::SEQUENCE_ERROR.into(),
            _ => return sc::INVALID_FIELD.into(),
        }
        Reply::Done(0)
    }

    /// Volatile Write Cache: there only when some volume has one, and then it can not be switched off.
    fn set_cache(&mut self, controller: ControllerRef, value: u32) -> Reply {
        match (self.has_cache(controller), value & 1) {
            (false, _) => sc::INVALID_FIELD.into(),
            (true, 1) => Reply::Done(0),
            (true, _) => sc::FEATURE_NOT_CHANGEABLE.into(),
        }
    }

    fn has_cache(&mut self, controller: ControllerRef) -> bool {
        let sub = self.controllers.get(controller).map(|c| c.sub);
        let subsystem = sub.and_then(|s| self.subsystem(s));
        subsystem.is_some_and(|s| s.namespaces.iter().any(|n| n.info.volatile_cache))
    }

    /// Get Features, current values.
    pub(super) fn get_feature(
        &mut self,
        controller: ControllerRef,
        feature: Feature,
        sgl: &Sgl,
        pool: &mut Pool,
    ) -> Reply {
        let cache = self.has_cache(controller);
        let Some(owner) = self.controllers.get(controller) else { return sc::INTERNAL_ERROR.into() };
        if feature.select != Some(Select::Current) {
            return sc::INVALID_FIELD.into();
        }
        let granted = u32::from(owner.queues_granted);
        let value = match (feature.fid, owner.discovery) {
            (fid::KEEP_ALIVE, _) => owner.kato,
            (fid::EVENT_CONFIG, _) => owner.events.config,
            (fid::QUEUES, false) => queue_counts_dword(granted, granted),
            (fid::ARBITRATION, false) => owner.features.arbitration,
            (fid::POWER, false) => owner.features.power,
            // THSEL: over (0) or under (1) the threshold, which is never.
            (fid::TEMPERATURE, false) if feature.value >> 20 & 3 == 1 => 0,
            (fid::TEMPERATURE, false) => owner.features.temperature.unwrap_or(TEMPERATURE) & 0xffff,
            (fid::ERROR_RECOVERY, false) => owner.features.error_recovery,
            (fid::WRITE_ATOMICITY, false) => owner.features.write_atomicity,
            (fid::VOLATILE_CACHE, false) if cache => 1,
            (fid::HOST_ID, false) => {
                // EXHID: fabrics hosts have 128-bit identifiers.
                if feature.value & 1 == 0 {
                    return sc::INVALID_FIELD.into();
                }
                if sgl.length.get() < 16 {
                    return sc::SGL_LENGTH_INVALID.into();
                }
                let Some(mut buf) = pool.get(16) else { return Reply::Blocked };
                buf.copy_from_slice(&owner.hostid);
                return Reply::Data(buf);
            }
            _ => return sc::INVALID_FIELD.into(),
        };
        Reply::Done(u64::from(value))
    }
}
