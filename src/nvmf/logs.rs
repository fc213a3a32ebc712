//! Get Log Page (base specification, "Get Log Page Command").

use super::admin::Reply;
use super::conn::Conn;
use super::message::ControllerRef;
use super::target::{Env, Target};
use crate::base::Time;
use crate::wire::nvme::admin::GetLogPage;
use crate::wire::nvme::log::{EFFECT_CONTENT, EFFECT_SUPPORTED, Effects, FirmwareSlots, Smart, SupportedPages, lid};
use crate::wire::nvme::{Sgl, StatusCode, admin_op, io_op, put_ascii, sc};
use zerocopy::{FromZeros, IntoBytes};

/// A window of a log page: bytes `offset..` of the page. The offset is the host's, and may be anything.
pub(super) struct Part<'a> {
    pub offset: u64,
    pub bytes: &'a mut [u8],
}

impl Part<'_> {
    /// Where the window ends.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// Copies what of `piece`, which begins at byte `at` of the page, lies in the window.
    pub fn put(&mut self, at: u64, piece: &[u8]) {
        let (from, to) = (self.offset.max(at), self.end().min(at + piece.len() as u64));
        if from < to {
            let here = (from - self.offset) as usize..(to - self.offset) as usize;
            self.bytes[here].copy_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
        }
    }
    /// True when any of `len` bytes at `at` of the page lies in the window.
    pub fn wants(&self, at: u64, len: u64) -> bool {
        self.offset < at + len && at < self.end()
    }
}

impl Target {
    /// The part of a log page that a host asks for.
    pub(super) fn log_page<V>(
        &mut self,
        c: &mut Conn,
        controller: ControllerRef,
        ask: GetLogPage,
        sgl: &Sgl,
        env: &mut Env<'_, V>,
    ) -> Reply {
        if !ask.offset.is_multiple_of(4) || ask.index_offset || ask.len > u64::from(self.config.log_page_bytes) {
            return sc::INVALID_FIELD.into();
        }
        if u64::from(sgl.length.get()) < ask.len {
            return sc::SGL_LENGTH_INVALID.into();
        }
        let Some(mut buf) = env.pool.get(ask.len as usize) else { return Reply::Blocked };
        buf.fill(0);
        let part = Part { offset: ask.offset, bytes: &mut buf };
        match self.fill_log(c, controller, ask, part, env.now) {
            Ok(()) => Reply::Data(buf),
            Err(code) => {
                env.pool.put(buf);
                code.into()
            }
        }
    }

    fn fill_log(
        &mut self,
        c: &mut Conn,
        controller: ControllerRef,
        ask: GetLogPage,
        mut part: Part<'_>,
        now: Time,
    ) -> Result<(), StatusCode> {
        let Some(owner) = self.controllers.get(controller) else { return Err(sc::INTERNAL_ERROR) };
        let (discovery, offset) = (owner.discovery, part.offset);
        let within = |len: usize| if offset <= len as u64 { Ok(()) } else { Err(sc::INVALID_FIELD) };
        match (ask.lid, discovery) {
            (lid::SUPPORTED, _) => {
                within(size_of::<SupportedPages>())?;
                part.put(0, supported(discovery).as_bytes());
            }
            (lid::ERROR, _) => {
                within(super::controller::ERROR_LOG * 64)?;
                for (i, entry) in owner.errors.iter().enumerate() {
                    part.put(i as u64 * 64, entry.as_bytes());
                }
            }
            (lid::DISCOVERY, true) => {
                if !ask.retain {
                    owner.events.discovery_told = false;
                    self.eventful = true;
                }
                let len = self.fill_discovery_log(c, part);
                within(len)?;
            }
            (lid::SMART, false) => {
                within(size_of::<Smart>())?;
                part.put(0, smart(owner, now).as_bytes());
            }
            (lid::FIRMWARE, false) => {
                within(size_of::<FirmwareSlots>())?;
                let sub = owner.sub;
                let revision = self.subsystem(sub).map(|s| s.firmware.as_str()).filter(|f| !f.is_empty());
                part.put(0, firmware(revision.unwrap_or(env!("CARGO_PKG_VERSION"))).as_bytes());
            }
            (lid::CHANGED_NAMESPACES, false) => {
                within(4096)?;
                fill_changed(owner, &mut part);
                if !ask.retain {
                    owner.changed = Some(Vec::new());
                    owner.events.namespaces_told = false;
                    self.eventful = true;
                }
            }
            (lid::EFFECTS, false) => {
                within(size_of::<Effects>())?;
                part.put(0, effects().as_bytes());
            }
            _ => return Err(sc::INVALID_LOG_PAGE),
        }
        Ok(())
    }
}

/// Log 00h.
fn supported(discovery: bool) -> SupportedPages {
    let mut page = SupportedPages::new_zeroed();
    let both: &[u8] = &[lid::SUPPORTED, lid::ERROR];
    let own: &[u8] =
        if discovery { &[lid::DISCOVERY] } else { &[lid::SMART, lid::FIRMWARE, lid::CHANGED_NAMESPACES, lid::EFFECTS] };
    for lid in both.iter().chain(own) {
        page.lids[usize::from(*lid)].set(1);
    }
    page
}

/// Log 02h. There is no media wear and no thermometer to report on; the counters are real.
fn smart(owner: &super::controller::Controller, now: Time) -> Smart {
    let mut page = Smart::new_zeroed();
    page.spare = 100;
    page.spare_threshold = 10;
    // Thousands of 512-byte units, rounded up.
    let units = |bytes: u64| u128::from(bytes.div_ceil(512_000));
    page.units_read.set(units(owner.work.read_bytes));
    page.units_written.set(units(owner.work.write_bytes));
    page.reads.set(u128::from(owner.work.reads));
    page.writes.set(u128::from(owner.work.writes));
    page.media_errors.set(u128::from(owner.work.media_errors));
    page.error_entries.set(u128::from(owner.error_count));
    page.power_on_hours.set(u128::from(now.since(owner.since) / 3_600_000_000_000));
    page
}

/// Log 03h: one slot, read only, active.
fn firmware(revision: &str) -> FirmwareSlots {
    let mut page = FirmwareSlots::new_zeroed();
    page.active = 1;
    put_ascii(&mut page.revisions[0], revision);
    page
}

/// Log 04h.
fn fill_changed(owner: &super::controller::Controller, part: &mut Part<'_>) {
    match &owner.changed {
        None => part.put(0, &u32::MAX.to_le_bytes()),
        Some(list) => {
            for (i, nsid) in list.iter().enumerate() {
                part.put(i as u64 * 4, &nsid.to_le_bytes());
            }
        }
    }
}

/// Log 05h.
fn effects() -> Effects {
    let mut page = Effects::new_zeroed();
    for op in [
        admin_op::GET_LOG_PAGE,
        admin_op::IDENTIFY,
        admin_op::ABORT,
        admin_op::SET_FEATURES,
        admin_op::GET_FEATURES,
        admin_op::ASYNC_EVENT,
        admin_op::KEEP_ALIVE,
    ] {
        page.admin[usize::from(op)].set(EFFECT_SUPPORTED);
    }
    for op in [io_op::FLUSH, io_op::READ, io_op::COMPARE] {
        page.io[usize::from(op)].set(EFFECT_SUPPORTED);
    }
    for op in [io_op::WRITE, io_op::WRITE_ZEROES, io_op::DSM] {
        page.io[usize::from(op)].set(EFFECT_SUPPORTED | EFFECT_CONTENT);
    }
    page
}
