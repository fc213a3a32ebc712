//! One `io_uring` of one core, set up with the best flags the kernel takes and entered only when there is something
//! to submit or the kernel says (`IORING_SQ_TASKRUN`) that it holds completions back for us.

use crate::mem::Span;
use io_uring::{IoUring, squeue};
use rustix::event::{EventfdFlags, eventfd};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1 << 0;
/// Most bytes the kernel takes as one registered buffer.
const BUFFER_MAX: usize = 1 << 30;

/// Flag sets, best first. Each needs a newer kernel than the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tier {
    /// Completions wait in the kernel until this thread asks (6.1).
    Deferred,
    /// Completions come when this thread enters the kernel for any reason (5.19).
    Cooperative,
    /// Completions interrupt this thread.
    Plain,
}

/// A completion: the submission's user data and the kernel's result.
pub(super) type Cqe = (u64, i32);

pub(super) struct Ring {
    io: IoUring,
    tier: Tier,
    polled: bool,
    enabled: bool,
    spans: Vec<Part>,
    inflight: usize,
    /// Operations pushed and not handed over.
    queued: u32,
    /// Signalled by the kernel for every completion. A sleeper cannot wait on the ring itself: completions that wait
    /// in the kernel for this thread (`Tier::Deferred`) do not wake who polls the ring's descriptor.
    bell: OwnedFd,
    /// The kernel rings the bell. Only while somebody may sleep: a signal per completion is not free.
    ringing: Cell<bool>,
}

/// One registered buffer.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    len: usize,
}

impl Ring {
    /// A ring for `entries` operations under way; `polled`: the kernel polls the device for completions.
    /// It starts disabled, so that it belongs to the thread that uses it first, not to the one that makes it.
    pub fn new(entries: u32, polled: bool) -> io::Result<Ring> {
        let mut last = io::Error::from_raw_os_error(libc::ENOSYS);
        for tier in [Tier::Deferred, Tier::Cooperative, Tier::Plain] {
            let mut builder = IoUring::builder();
            match tier {
                Tier::Deferred => {
                    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
                    builder.setup_submit_all().setup_r_disabled()
                }
                Tier::Cooperative => {
                    builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all().setup_r_disabled()
                }
                Tier::Plain => builder.setup_r_disabled(),
            };
            if polled {
                builder.setup_iopoll();
            }
            match builder.build(entries.next_power_of_two()) {
                Ok(io) => {
                    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                    io.submitter().register_eventfd(bell.as_raw_fd())?;
                    let ring = Ring {
                        io,
                        tier,
                        polled,
                        enabled: false,
                        spans: Vec::new(),
                        inflight: 0,
                        queued: 0,
                        bell,
                        ringing: Cell::new(true),
                    };
                    ring.quieten();
                    return Ok(ring);
                }
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// Registers `files`; operations name them by their index.
    pub fn register_files(&self, files: &[&File]) -> io::Result<()> {
        let fds: Vec<RawFd> = files.iter().map(|f| f.as_raw_fd()).collect();
        self.io.submitter().register_files(&fds)
    }

    /// Pins the memory of `spans`, so that the kernel need not look it up for every transfer.
    ///
    /// # Errors
    /// `ENOMEM` where the memlock limit is too small; transfers then work without.
    pub fn register_spans(&mut self, spans: &[Span]) -> io::Result<()> {
        let mut parts = Vec::new();
        for span in spans {
            let (start, len) = (span.start().as_ptr() as usize, span.len());
            let cuts = (0..len).step_by(BUFFER_MAX);
            parts.extend(cuts.map(|at| Part { start: start + at, len: (len - at).min(BUFFER_MAX) }));
        }
        let iovecs: Vec<_> =
            parts.iter().map(|p| libc::iovec { iov_base: p.start as *mut libc::c_void, iov_len: p.len }).collect();
        if !iovecs.is_empty() {
            // SAFETY: spans come from arenas, which stay mapped for the life of the process, longer than any ring.
            unsafe { self.io.submitter().register_buffers(&iovecs)? };
            self.spans = parts;
        }
        Ok(())
    }

    /// The registered buffer that holds all `len` bytes at `at`.
    #[inline]
    pub fn registered(&self, at: *const u8, len: usize) -> Option<u16> {
        let find = |p: &Part| {
            let from = (at as usize).wrapping_sub(p.start);
            from < p.len && len <= p.len - from
        };
        self.spans.iter().position(find).map(|i| i as u16)
    }

    /// Queues an operation for the next [`Ring::kick`].
    ///
    /// # Safety
    /// What the entry points to stays valid, and untouched by us, until its completion was reaped.
    #[inline]
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise is the one `push` asks for.
        let pushed = unsafe { self.io.submission().push(entry) };
        assert!(pushed.is_ok(), "the ring has an entry for every slot of its queue");
        self.inflight += 1;
        self.queued += 1;
    }

    /// Operations pushed and not reaped.
    pub fn inflight(&self) -> usize {
        self.inflight
    }

    /// Submits what was pushed, in one system call; none when there is nothing.
    #[inline]
    pub fn kick(&mut self) {
        if self.queued != 0 {
            // Asking for events too costs nothing here and saves the call in the next poll.
            self.enter(self.queued);
        }
    }

    /// Takes completions into `out`; returns how many. Enters the kernel only when it holds some back.
    #[inline]
    pub fn reap(&mut self, out: &mut [Cqe]) -> usize {
        if self.inflight == 0 {
            return 0;
        }
        if self.ringing.get() {
            self.quieten();
        }
        // A polled device is looked at only when asked; the others tell by a flag in shared memory.
        if self.enabled && (self.polled || self.io.submission().taskrun()) {
            self.enter(0);
        }
        let mut n = 0;
        for (slot, cqe) in out.iter_mut().zip(self.io.completion()) {
            *slot = (cqe.user_data(), cqe.result());
            n += 1;
        }
        self.inflight -= n;
        n
    }

    fn enter(&mut self, to_submit: u32) {
        if !self.enabled {
            self.enable();
        }
        // SAFETY: no signal mask and no extended argument are passed; the entries were vouched for in `push`.
        let r = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.io.as_raw_fd(),
                to_submit,
                0u32,
                GETEVENTS,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if r < 0 {
            let error = io::Error::last_os_error();
            // Out of kernel memory or interrupted: what is queued stays queued for the next turn. Anything else is a
            // ring used by two threads or closed behind our back.
            assert!(
                matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM)),
                "io_uring_enter: {error}"
            );
        } else {
            self.queued -= r as u32;
        }
    }

    /// Makes the ring this thread's.
    #[cold]
    fn enable(&mut self) {
        self.io.submitter().register_enable_rings().expect("a disabled ring can be enabled once");
        self.enabled = true;
    }

    /// A descriptor that becomes readable when there is something to reap; `None` when there is already, so that nobody
    /// goes to sleep over it.
    pub fn bell(&self) -> Option<RawFd> {
        let mut count = [0; 8];
        // Older signals are for completions that were reaped or that the look below finds; newer ones stay.
        let _ = rustix::io::read(&self.bell, &mut count);
        self.ringing.set(true);
        // SAFETY: only this thread uses the ring, and no other view of the queue exists during this call.
        unsafe { self.io.completion_shared().enable_eventfd() };
        // The kernel marks a completion and then looks whether to ring; we allow ringing and then look for marks. One
        // of the two sees the other.
        fence(Ordering::SeqCst);
        // SAFETY: as above, for both queues.
        let waiting = unsafe { self.io.submission_shared().taskrun() || !self.io.completion_shared().is_empty() };
        (!waiting || self.inflight == 0).then(|| self.bell.as_raw_fd())
    }

    /// Nobody sleeps: no bell.
    fn quieten(&self) {
        self.ringing.set(false);
        // SAFETY: only this thread uses the ring, and no other view of the queue exists during this call.
        unsafe { self.io.completion_shared().disable_eventfd() };
    }

    /// The flags in use.
    pub fn tier(&self) -> Tier {
        self.tier
    }
    /// True when the kernel polls the device.
    pub fn is_polled(&self) -> bool {
        self.polled
    }
    /// True when transfers use registered memory.
    pub fn has_spans(&self) -> bool {
        !self.spans.is_empty()
    }
}
