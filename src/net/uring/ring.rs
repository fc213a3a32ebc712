//! The rings shared with the kernel and the memory it writes into: everything unsafe of the `io_uring` engine that is
//! not a send's own memory.
//!
//! What stays true: the kernel may write into a buffer of the ring only between [`Buffers::give`] and the completion that
//! names it; the memory of the buffers is freed only when no operation is under way (else it is left behind).

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, squeue};
use rustix::event::{EventfdFlags, eventfd};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};

/// Room in front of each buffer's data, where a connection's rest is put before what follows it.
pub(super) const HEADROOM: usize = super::super::CARRY_MAX;
/// Bytes one receive brings at most.
pub(super) const DATA: usize = 64 * 1024;
/// Buffers the kernel can choose from; a power of two. They are given back as soon as they are parsed, so this bounds
/// what one turn receives (2 MiB), not how many connections there are.
pub(super) const COUNT: u16 = 32;
/// The group that names the buffers to the kernel.
pub(super) const GROUP: u16 = 0;
/// Operations submitted with one call at most; more take another call.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit; more wait in the kernel.
pub(super) const COMPLETIONS: u32 = 8192;

const STRIDE: usize = HEADROOM + DATA;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    /// What was submitted with the operation.
    pub(super) token: u64,
    /// Non-negative: the operation's value. Negative: an error number.
    pub(super) result: i32,
    /// The buffer that was filled.
    pub(super) buffer: Option<u16>,
    /// The operation goes on and will complete again.
    pub(super) more: bool,
}

/// Submission and completion rings, and how many operations are under way.
pub(super) struct Ring {
    io: IoUring,
    enabled: bool,
    underway: usize,
    pub(super) buffers: Buffers,
    /// Rung by the kernel for work it has put off. The ring's own descriptor would not do: such work does not wake who
    /// sleeps on it.
    bell: OwnedFd,
    /// The kernel rings the bell. Only while somebody may sleep: a signal per receive is not free.
    ringing: Cell<bool>,
}

impl Ring {
    /// Sets the rings up. They belong to the thread that first submits.
    pub(super) fn new() -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // Single issuer is whoever enables the ring, not whoever made it.
            .setup_r_disabled()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new(&ring)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        let ring = Ring { io: ring, enabled: false, underway: 0, buffers, bell, ringing: Cell::new(true) };
        ring.quieten();
        Ok(ring)
    }

    /// Queues an operation for the next [`Ring::enter`].
    ///
    /// # Safety
    /// Memory that `entry` points to must stay valid, and must not move, until the operation's last completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: passed on from the caller.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                break;
            }
            self.enter();
        }
        self.underway += 1;
    }

    /// Submits what is queued and lets the kernel do work it has put off for this thread.
    pub(super) fn enter(&mut self) {
        if !self.enabled {
            // Enabled twice is an error that changes nothing; any other will show as completions that never come, and
            // cannot happen with a ring that was set up.
            let enabled = self.io.submitter().register_enable_rings();
            assert!(enabled.is_ok(), "the ring cannot be enabled: {enabled:?}");
            self.enabled = true;
        }
        // Interrupted or out of memory for the moment: what is queued stays queued, and the next turn comes.
        let _ = self.io.submit();
    }

    /// True when an enter would submit or complete something.
    pub(super) fn wants_enter(&mut self) -> bool {
        let queue = self.io.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// True when a completion can be taken.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Moves the completions that are there into `out`.
    pub(super) fn harvest(&mut self, out: &mut Vec<Completion>) {
        for entry in self.io.completion() {
            let (flags, more) = (entry.flags(), cqueue::more(entry.flags()));
            self.underway -= usize::from(!more);
            let buffer = cqueue::buffer_select(flags);
            out.push(Completion { token: entry.user_data(), result: entry.result(), buffer, more });
        }
    }

    /// Operations that will still complete.
    pub(super) fn underway(&self) -> usize {
        self.underway
    }

    /// A descriptor that becomes readable when there is something to do; `None` when there is already, so that nobody
    /// goes to sleep over it.
    pub(super) fn bell(&self) -> Option<RawFd> {
        let mut count = [0; 8];
        // Older signals are for what was dealt with or what the look below finds; newer ones stay.
        let _ = rustix::io::read(&self.bell, &mut count);
        self.ringing.set(true);
        // SAFETY: only this thread uses the ring, and no other view of the queue exists during this call.
        unsafe { self.io.completion_shared().enable_eventfd() };
        // The kernel marks its work and then looks whether to ring; we allow ringing and then look for marks. One of the
        // two sees the other.
        fence(Ordering::SeqCst);
        // SAFETY: as above, for both queues.
        let waiting = unsafe { self.io.submission_shared().taskrun() || !self.io.completion_shared().is_empty() };
        (!waiting).then(|| self.bell.as_raw_fd())
    }

    /// Nobody sleeps: no bell.
    pub(super) fn quieten(&self) {
        if self.ringing.replace(false) {
            // SAFETY: only this thread uses the ring, and no other view of the queue exists during this call.
            unsafe { self.io.completion_shared().disable_eventfd() };
        }
    }
}

/// The buffers that receives land in.
pub(super) struct Buffers {
    data: NonNull<u8>,
    ring: NonNull<BufRingEntry>,
    tail: u16,
}

// SAFETY: the pointers own their memory; whoever has the value may use it from any one thread.
unsafe impl Send for Buffers {}

impl Buffers {
    fn layouts() -> (Layout, Layout) {
        let data = Layout::from_size_align(STRIDE * usize::from(COUNT), 4096).expect("constant and small");
        let ring =
            Layout::from_size_align(size_of::<BufRingEntry>() * usize::from(COUNT), 4096).expect("constant and small");
        (data, ring)
    }

    fn new(uring: &IoUring) -> io::Result<Buffers> {
        let (data_layout, ring_layout) = Buffers::layouts();
        // SAFETY: both layouts have a size above zero.
        let (data, ring) = unsafe { (alloc_zeroed(data_layout), alloc_zeroed(ring_layout)) };
        let Some(data) = NonNull::new(data) else { handle_alloc_error(data_layout) };
        let Some(ring) = NonNull::new(ring) else { handle_alloc_error(ring_layout) };
        let mut buffers = Buffers { data, ring: ring.cast(), tail: 0 };
        // SAFETY: the ring's memory holds COUNT entries and is freed only after the io_uring instance is gone.
        unsafe { uring.submitter().register_buf_ring_with_flags(ring.as_ptr() as u64, COUNT, GROUP, 0)? };
        for id in 0..COUNT {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// The whole buffer `id`: headroom, then data.
    pub(super) fn bytes(&mut self, id: u16) -> &mut [u8] {
        assert!(id < COUNT, "a buffer the kernel was never given");
        // SAFETY: inside the allocation; the kernel has completed its use and gets the buffer back only through
        // `give`, which cannot be called while this borrow lasts.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(usize::from(id) * STRIDE), STRIDE) }
    }

    /// Gives buffer `id` to the kernel.
    pub(super) fn give(&mut self, id: u16) {
        let place = usize::from(self.tail % COUNT);
        // SAFETY: `place` < COUNT, inside the ring's memory, and the kernel reads entries only below the tail that is
        // published after they are written. Entry 0 shares its last field with the tail, which set_* do not touch.
        let tail = unsafe {
            let entry = self.ring.as_ptr().add(place);
            (*entry).set_addr(self.data.as_ptr().add(usize::from(id) * STRIDE + HEADROOM) as u64);
            (*entry).set_len(DATA as u32);
            (*entry).set_bid(id);
            AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut())
        };
        self.tail = self.tail.wrapping_add(1);
        tail.store(self.tail, Ordering::Release);
    }

    /// Frees the memory.
    ///
    /// # Safety
    /// No operation that may use the buffers is under way, and none will be started.
    pub(super) unsafe fn free(&mut self) {
        let (data, ring) = Buffers::layouts();
        // SAFETY: allocated with these layouts in `new`, and used by nobody any more.
        unsafe {
            dealloc(self.data.as_ptr(), data);
            dealloc(self.ring.as_ptr().cast(), ring);
        }
    }

    /// Stops the kernel from choosing buffers, as far as that is possible.
    pub(super) fn unregister(ring: &Ring) -> bool {
        ring.io.submitter().unregister_buf_ring(GROUP).is_ok()
    }
}
