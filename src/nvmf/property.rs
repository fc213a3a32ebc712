//! Property Get and Set: controller registers over fabrics (base specification, "Controller Properties"), and what
//! setting CC does to the controller.

use super::conn::Conn;
use super::message::ControllerRef;
use super::target::Target;
use crate::net::Close;
use crate::wire::fabrics::{Property, property as p};
use crate::wire::nvme::{StatusCode, VERSION, sc};

/// CAP.TO: time within which CSTS.RDY follows CC.EN, 500 ms units.
const READY_TIMEOUT: u8 = 20;

impl Target {
    /// Property Get or Set on an admin queue; the result of the completion.
    pub(super) fn property(
        &mut self,
        c: &mut Conn,
        controller: ControllerRef,
        property: Property,
    ) -> Result<u64, StatusCode> {
        let owner = self.controllers.get(controller).ok_or(sc::INTERNAL_ERROR)?;
        let wide = property.wide.ok_or(sc::INVALID_FIELD)?;
        let Some(value) = property.value else {
            return match (property.offset, wide) {
                (p::CAP, true) => Ok(p::cap(owner.mqes, READY_TIMEOUT)),
                (p::VS, false) => Ok(u64::from(VERSION)),
                (p::CC, false) => Ok(u64::from(owner.cc)),
                (p::CSTS, false) => Ok(u64::from(owner.csts)),
                // Optional properties that this controller does not have read as zero.
                (p::NSSR | p::CRTO, false) => Ok(0),
                _ => Err(sc::INVALID_FIELD),
            };
        };
        if property.offset != p::CC || wide {
            return Err(sc::INVALID_FIELD);
        }
        self.set_cc(c, controller, value as u32);
        Ok(0)
    }

    /// Controller Configuration: enable, reset, shutdown.
    fn set_cc(&mut self, c: &mut Conn, controller: ControllerRef, cc: u32) {
        let Some(owner) = self.controllers.get(controller) else { return };
        let old = std::mem::replace(&mut owner.cc, cc);
        let (was, is) = (old & p::CC_EN != 0, cc & p::CC_EN != 0);
        if is && !was {
            let legal = p::cc_css(cc) == 0 && p::cc_mps(cc) == 0 && p::cc_ams(cc) == 0;
            owner.csts = if legal { p::CSTS_RDY } else { p::CSTS_CFS };
        }
        if was && !is {
            // Controller Level Reset: I/O queues go, requests for events are forgotten, features start anew.
            owner.csts = 0;
            owner.events = super::controller::Events::default();
            owner.features = super::features::Values::default();
            owner.queues_granted = owner.queues_max;
            owner.aborts = 0;
            for index in std::mem::take(&mut owner.requests) {
                c.slots.free(index);
            }
            self.end_queues(controller, Close::AfterSend);
        } else if p::cc_shn(cc) != 0 && p::cc_shn(old) == 0 {
            // Every completed write is where it was promised to be, so a shutdown is complete at once.
            owner.csts |= p::CSTS_SHST_COMPLETE;
            self.end_queues(controller, Close::AfterSend);
        }
    }
}
