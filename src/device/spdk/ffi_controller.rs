//! A controller that SPDK attached to. Everything here may block for seconds: SPDK takes its own lock and waits for the
//! controller's answers. No reactor calls it.

use super::ffi::{sys, why};
use std::cell::UnsafeCell;
use std::ffi::CString;
use std::ptr::{NonNull, null};
use std::time::{Duration, Instant};

/// A command that is under way for longer means that the controller has to be reset.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for an admin command, a Keep Alive for example.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a controller to let go of its admin queue.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at what takes its time.
const STEP: Duration = Duration::from_millis(1);

/// What a namespace is and can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// Bytes.
    pub size: u64,
    /// Bytes per block.
    pub block_size: u32,
    /// Bytes of metadata per block.
    pub metadata: u32,
    /// Largest transfer of one command, bytes.
    pub transfer_max: u32,
    /// Bytes that a power cut leaves whole or untouched.
    pub atomic_bytes: u32,
    /// Protection information is on.
    pub protected: bool,
    /// Acknowledged writes may be lost until a flush.
    pub volatile_cache: bool,
    /// Write Zeroes is supported.
    pub write_zeroes: bool,
    /// Deallocate is supported.
    pub discard: bool,
    /// Write-protected now.
    pub read_only: bool,
    /// NGUID, EUI-64 and UUID.
    pub identity: [u8; 40],
}

/// An attached controller; detached when dropped.
pub(super) struct Handle {
    raw: NonNull<sys::spdk_nvme_ctrlr>,
    /// SPDK writes to it from whatever thread polls; it is read with atomic operations in the shim.
    events: Box<UnsafeCell<sys::pollux_spdk_events>>,
}

// SAFETY: SPDK's controllers belong to no thread; it takes a lock for each call made here.
unsafe impl Send for Handle {}
// SAFETY: as above; the events are touched with atomic operations only.
unsafe impl Sync for Handle {}

impl Handle {
    /// Attaches to the controller of the transport id.
    ///
    /// # Errors
    /// What SPDK said.
    pub fn attach(trid: &str, hostnqn: Option<&str>) -> Result<Handle, String> {
        let text = |t: &str| CString::new(t).map_err(|_| "a NUL in the transport id".to_owned());
        let (trid, hostnqn) = (text(trid)?, hostnqn.map(text).transpose()?);
        // What it complained of before is another matter.
        why(0);
        // SAFETY: both strings live across the call.
        let raw = unsafe { sys::pollux_spdk_attach(trid.as_ptr(), hostnqn.as_ref().map_or(null(), |h| h.as_ptr())) };
        let raw = NonNull::new(raw).ok_or_else(|| why(-libc::ENXIO))?;
        let events = Box::new(UnsafeCell::new(sys::pollux_spdk_events { changed: 0, overdue: 0 }));
        let micros = |d: Duration| d.as_micros() as u64;
        // SAFETY: the controller was just attached; the events live in a box until it is detached.
        unsafe { sys::pollux_spdk_watch(raw.as_ptr(), events.get(), micros(IO_TIMEOUT), micros(ADMIN_TIMEOUT)) };
        Ok(Handle { raw, events })
    }

    pub(super) fn raw(&self) -> *mut sys::spdk_nvme_ctrlr {
        self.raw.as_ptr()
    }

    /// The lowest active namespace.
    pub fn first_active(&self) -> Option<u32> {
        // SAFETY: the controller is attached.
        let nsid = unsafe { sys::spdk_nvme_ctrlr_get_first_active_ns(self.raw()) };
        (nsid != 0).then_some(nsid)
    }

    /// What namespace `nsid` is; `None` when it is not active.
    pub fn facts(&self, nsid: u32) -> Option<Facts> {
        let mut raw = std::mem::MaybeUninit::<sys::pollux_spdk_facts>::zeroed();
        // SAFETY: the controller is attached; the facts have room for what is written.
        let active = unsafe { sys::pollux_spdk_facts(self.raw(), nsid, raw.as_mut_ptr()) };
        // SAFETY: zeroes are valid facts, and so is what the shim wrote.
        let raw = unsafe { raw.assume_init() };
        active.then(|| Facts {
            size: raw.size,
            block_size: raw.block_size,
            metadata: raw.metadata,
            transfer_max: raw.transfer_max,
            atomic_bytes: raw.atomic_blocks.saturating_mul(raw.block_size),
            protected: raw.protected_,
            volatile_cache: raw.volatile_cache,
            write_zeroes: raw.write_zeroes,
            discard: raw.discard,
            read_only: raw.read_only,
            identity: raw.identity,
        })
    }

    /// Completes admin commands and sends a Keep Alive when it is due.
    ///
    /// # Errors
    /// The error number, when the admin queue failed.
    pub fn poll_admin(&self) -> Result<(), i32> {
        // SAFETY: the controller is attached.
        let result = unsafe { sys::spdk_nvme_ctrlr_process_admin_completions(self.raw()) };
        if result < 0 { Err(-result) } else { Ok(()) }
    }

    /// True when an asynchronous event came since this was last asked.
    pub fn take_changed(&self) -> bool {
        // SAFETY: the field is part of the box; the shim reads and clears it atomically.
        unsafe { sys::pollux_spdk_take(&raw mut (*self.events.get()).changed) }
    }

    /// True when a command was overdue since this was last asked.
    pub fn take_overdue(&self) -> bool {
        // SAFETY: as above.
        unsafe { sys::pollux_spdk_take(&raw mut (*self.events.get()).overdue) }
    }

    /// Resets the controller and starts it again. I/O queue pairs of fabrics must be closed before, and
    /// reconnected after; those of PCI devices come back by themselves, and give up what was under way.
    ///
    /// # Errors
    /// What SPDK said.
    pub fn reset(&self) -> Result<(), String> {
        // SAFETY: the controller is attached.
        let result = unsafe { sys::spdk_nvme_ctrlr_disconnect(self.raw()) };
        if result != 0 {
            return Err(why(result));
        }
        let start = Instant::now();
        while self.poll_admin() != Err(libc::ENXIO) {
            if start.elapsed() > DISCONNECT_TIMEOUT {
                return Err("the controller does not let go of its admin queue".into());
            }
            std::thread::sleep(STEP);
        }
        // SAFETY: the controller is attached and disconnected. This takes SPDK's lock, which the last of the polls
        // below gives back, on this thread.
        unsafe { sys::spdk_nvme_ctrlr_reconnect_async(self.raw()) };
        loop {
            // SAFETY: as above.
            match unsafe { sys::spdk_nvme_ctrlr_reconnect_poll_async(self.raw()) } {
                0 => return Ok(()),
                again if again == -libc::EAGAIN => std::thread::sleep(STEP),
                error => return Err(why(error)),
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the controller is attached, and its queue pairs are gone: whoever has one has a reference to what
        // owns this.
        unsafe { sys::spdk_nvme_detach(self.raw()) };
    }
}
