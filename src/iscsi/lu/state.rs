//! What commands can change about a unit, on one core. Every core has its own copy: a change is an [`LuEvent`], which the
//! task layer carries to all cores, so that each applies the same changes.

use super::Attention;
use super::copy::{Copies, CopyResult};
use crate::volume::reserve;
use crate::wire::scsi::mode::Modes;

/// A change that a command made and that every core must see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LuEvent {
    /// START STOP UNIT: the unit serves the medium, or does not.
    Started(bool),
    /// MODE SELECT.
    Modes(Modes),
    /// SANITIZE: how far it is, of 65536; `None`: it ended.
    Sanitizing(Option<u16>),
    /// SANITIZE ended with a failure: the medium is not served until another one succeeds.
    SanitizeFailed {
        /// AUSE: or until EXIT FAILURE MODE.
        may_exit: bool,
    },
    /// The pool behind the volume has less space left than its soft threshold.
    NearlyFull,
    /// LOGICAL UNIT RESET (or a reset of the whole target).
    Reset,
}

impl LuEvent {
    /// What every nexus other than the one that caused it is told.
    pub fn attention(self) -> Option<Attention> {
        match self {
            LuEvent::Started(_) | LuEvent::Sanitizing(_) | LuEvent::SanitizeFailed { .. } => None,
            LuEvent::Modes(_) => Some(Attention::ModeChanged),
            LuEvent::NearlyFull => Some(Attention::SoftThreshold),
            LuEvent::Reset => Some(Attention::DeviceReset),
        }
    }
}

/// What keeps the medium from being served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// START STOP UNIT stopped it.
    Stopped,
    /// It is being sanitized; how far, of 65536.
    Sanitizing(u16),
    /// A SANITIZE failed; whether EXIT FAILURE MODE ends that.
    SanitizeFailed(bool),
}

/// The state of a unit on a core.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    modes: Modes,
    obstacle: Option<Obstacle>,
    copies: Copies,
}

impl State {
    /// Takes a change over.
    pub fn told(&mut self, event: LuEvent) {
        match event {
            LuEvent::Started(true) if self.obstacle == Some(Obstacle::Stopped) => self.obstacle = None,
            LuEvent::Started(false) if self.obstacle.is_none() => self.obstacle = Some(Obstacle::Stopped),
            LuEvent::Started(_) | LuEvent::NearlyFull => {}
            LuEvent::Modes(modes) => self.modes = modes,
            LuEvent::Sanitizing(progress) => self.obstacle = progress.map(Obstacle::Sanitizing),
            LuEvent::SanitizeFailed { may_exit } => self.obstacle = Some(Obstacle::SanitizeFailed(may_exit)),
            LuEvent::Reset => {
                self.modes = Modes::default();
                // A reset ends neither a SANITIZE (SBC-3, 4.11.3) nor what it left.
                if self.obstacle == Some(Obstacle::Stopped) {
                    self.obstacle = None;
                }
                self.copies = Copies::default();
            }
        }
    }

    /// A nexus is gone: what was kept for it goes.
    pub fn nexus_lost(&mut self, nexus: &reserve::Nexus) {
        self.copies.forget(nexus);
    }

    /// True when nothing here forbids a read or write.
    #[inline]
    pub(super) fn serves(&self) -> bool {
        self.obstacle.is_none()
    }

    /// What forbids it.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Mode parameters as they are.
    pub(super) fn modes(&self) -> Modes {
        self.modes
    }

    /// True while SWP is set.
    #[inline]
    pub(super) fn write_protected(&self) -> bool {
        self.modes.write_protect
    }

    /// True when sense data is returned in descriptor format (`D_SENSE`).
    #[inline]
    pub(super) fn descriptor_sense(&self) -> bool {
        self.modes.descriptor_sense
    }

    /// Keeps what became of a copy until it is asked for.
    pub(super) fn keep_copy(&mut self, nexus: &reserve::Nexus, id: u8, result: CopyResult) {
        self.copies.keep(nexus, id, result);
    }

    /// What became of a copy.
    pub(super) fn copy_result(&self, nexus: &reserve::Nexus, id: u8) -> Option<CopyResult> {
        self.copies.get(nexus, id)
    }

    /// Drops what became of a copy: it was asked for.
    pub(super) fn drop_copy(&mut self, nexus: &reserve::Nexus, id: u8) {
        self.copies.drop_one(nexus, id);
    }
}
