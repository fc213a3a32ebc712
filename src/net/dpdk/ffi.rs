//! DPDK behind safe types: the one file that calls the shim. What stays true: a mbuf has exactly one owner (a [`Frame`], the
//! list of a [`Queue`], or the driver); a [`Queue`] is used by one thread at a time; memory outlives its users, because
//! [`super::Dpdk`] lets go of ports and pools last.

#[allow(non_camel_case_types, non_upper_case_globals, clippy::all, clippy::pedantic, missing_docs, dead_code)]
mod shim {
    include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));
}

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr::NonNull;

/// Offloads of a port: an or of these.
pub(super) mod offload {
    use super::shim;
    pub(in super::super) const RX_IP: u32 = shim::pollux_offload_POLLUX_OFFLOAD_RX_IP;
    pub(in super::super) const RX_TCP: u32 = shim::pollux_offload_POLLUX_OFFLOAD_RX_TCP;
    pub(in super::super) const TX_TCP: u32 = shim::pollux_offload_POLLUX_OFFLOAD_TX_TCP;
    pub(in super::super) const TX_FAST_FREE: u32 = shim::pollux_offload_POLLUX_OFFLOAD_TX_FAST_FREE;
}

/// What a port is and offers.
pub(super) type Description = shim::pollux_port;
/// Counters of a port.
pub(super) type Counts = shim::pollux_counts;
/// Takes a line of DPDK's log and its level, 1 (worst) to 8.
pub(super) type LogSink = fn(u32, &str);

/// An errno that a shim function returned.
fn done(status: i32) -> io::Result<()> {
    if status < 0 { Err(io::Error::from_raw_os_error(-status)) } else { Ok(()) }
}

static SINK: std::sync::OnceLock<LogSink> = std::sync::OnceLock::new();

/// Called by DPDK for each line it logs, from any thread.
unsafe extern "C" fn log_line(level: u32, line: *const c_char, len: usize) {
    // SAFETY: the shim hands over the bytes that stdio gave it, valid for this call.
    let bytes = unsafe { std::slice::from_raw_parts(line.cast::<u8>(), len) };
    if let Some(sink) = SINK.get() {
        sink(level, String::from_utf8_lossy(bytes).trim_end());
    }
}

/// Starts the environment layer. Once per process; the caller sees to that.
pub(super) fn start(arguments: &[CString], sink: LogSink) -> io::Result<()> {
    let _ = SINK.set(sink);
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    argv.push(std::ptr::null_mut());
    let count = i32::try_from(arguments.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: argv holds strings that end in zero and live through the call, then a null; the layer reorders the pointers
    // and keeps copies of the strings.
    done(unsafe { shim::pollux_eal_start(count, argv.as_mut_ptr(), Some(log_line)) })
}

/// Ends the environment layer; nothing of it may be in use.
pub(super) fn stop() {
    // SAFETY: every port and pool was let go of before; what the layer cannot give back it says in its log.
    let _ = unsafe { shim::pollux_eal_stop() };
}

/// DPDK's version.
pub(super) fn version() -> String {
    // SAFETY: the function returns a string constant.
    unsafe { CStr::from_ptr(shim::pollux_version()) }.to_string_lossy().into_owned()
}

/// This thread's number with DPDK, given back when it is dropped.
pub(super) struct Thread(std::marker::PhantomData<*const ()>);

impl Thread {
    pub(super) fn enter() -> io::Result<Thread> {
        // SAFETY: no arguments; the layer runs.
        done(unsafe { shim::pollux_thread_enter() })?;
        Ok(Thread(std::marker::PhantomData))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: this thread entered (the type is not Send).
        unsafe { shim::pollux_thread_leave() };
    }
}

/// A port of DPDK, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PortId(u16);

impl PortId {
    pub(super) fn find(device: &CStr) -> io::Result<PortId> {
        let mut port = 0;
        // SAFETY: a string that ends in zero, and a place for the answer.
        done(unsafe { shim::pollux_port_find(device.as_ptr(), &raw mut port) })?;
        Ok(PortId(port))
    }

    pub(super) fn describe(self) -> io::Result<Description> {
        // SAFETY: the struct is plain integers, for which zeroes are valid, and the shim fills it.
        unsafe {
            let mut into = std::mem::zeroed();
            done(shim::pollux_port_describe(self.0, &raw mut into)).map(|()| into)
        }
    }

    pub(super) fn configure(self, queues: u16, offloads: u32, rss: bool, mtu: u16) -> io::Result<()> {
        // SAFETY: integers only; the port is stopped.
        done(unsafe { shim::pollux_port_configure(self.0, queues, offloads, i32::from(rss), mtu) })
    }

    pub(super) fn set_mtu(self, mtu: u16) -> io::Result<()> {
        // SAFETY: integers only.
        done(unsafe { shim::pollux_port_set_mtu(self.0, mtu) })
    }

    /// Sets up a queue; `pool` must outlive the port's being open.
    pub(super) fn set_queue(self, queue: u16, rings: (u16, u16), node: i32, pool: &Pool) -> io::Result<()> {
        // SAFETY: the pool is a live one; it outlives the port by the caller's word.
        done(unsafe { shim::pollux_port_queue(self.0, queue, rings.0, rings.1, node, pool.0.as_ptr()) })
    }

    pub(super) fn start(self) -> io::Result<()> {
        // SAFETY: integers only.
        done(unsafe { shim::pollux_port_start(self.0) })
    }

    pub(super) fn all_multicast(self) -> io::Result<()> {
        // SAFETY: integers only.
        done(unsafe { shim::pollux_port_all_multicast(self.0) })
    }

    /// True while the link is up.
    pub(super) fn link(self) -> io::Result<bool> {
        // SAFETY: integers only.
        let status = unsafe { shim::pollux_port_link(self.0) };
        done(status).map(|()| status == 1)
    }

    pub(super) fn counts(self) -> Option<Counts> {
        let mut into = Counts { missed: 0, errors: 0, no_memory: 0 };
        // SAFETY: a place for the answer.
        done(unsafe { shim::pollux_port_counts(self.0, &raw mut into) }).ok().map(|()| into)
    }

    /// Stops and closes the port; none of its queues may be in use.
    pub(super) fn close(self) {
        // SAFETY: integers only; the caller sees to the queues.
        unsafe { shim::pollux_port_close(self.0) };
    }
}

/// Buffers of one size. Copies name the same pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool(NonNull<shim::rte_mempool>);

// SAFETY: DPDK's pools may be used from any thread that has entered.
unsafe impl Send for Pool {}
// SAFETY: the same.
unsafe impl Sync for Pool {}

impl Pool {
    /// `count` buffers for frames of `bytes` at most.
    pub(super) fn new(name: &CStr, count: u32, bytes: u16, node: i32) -> io::Result<Pool> {
        let mut error = -libc::ENOMEM;
        // SAFETY: a string that ends in zero, and a place for the error.
        let pool = unsafe { shim::pollux_pool(name.as_ptr(), count, bytes + headroom(), node, &raw mut error) };
        NonNull::new(pool).map(Pool).ok_or_else(|| io::Error::from_raw_os_error(-error))
    }

    /// Gives the memory back; no buffer of it may be in use.
    pub(super) fn free(self) {
        // SAFETY: the caller sees to it that nobody uses the pool any more.
        unsafe { shim::pollux_pool_free(self.0.as_ptr()) };
    }
}

/// Bytes DPDK keeps free in front of each frame.
pub(super) fn headroom() -> u16 {
    // SAFETY: no arguments; a constant.
    unsafe { shim::pollux_headroom() as u16 }
}

/// A received frame, in the memory into which the port has put it.
#[repr(transparent)]
pub struct Frame(shim::pollux_frame);

impl Frame {
    /// The port verified the IPv4 header.
    pub(super) fn ip_is_good(&self) -> bool {
        self.0.checked & shim::pollux_checked_POLLUX_CHECKED_IP_GOOD != 0
    }
    /// The port verified TCP's checksum.
    pub(super) fn tcp_is_good(&self) -> bool {
        self.0.checked & shim::pollux_checked_POLLUX_CHECKED_TCP_GOOD != 0
    }
    /// The port found a wrong checksum.
    pub(super) fn is_bad(&self) -> bool {
        self.0.checked & shim::pollux_checked_POLLUX_CHECKED_BAD != 0
    }
    /// The bytes, to write.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mbuf is ours alone, and `data` and `len` describe its one segment.
        unsafe { std::slice::from_raw_parts_mut(self.0.data, self.0.len as usize) }
    }
}

impl AsRef<[u8]> for Frame {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mbuf is ours until we are dropped, and `data` and `len` describe its one segment.
        unsafe { std::slice::from_raw_parts(self.0.data, self.0.len as usize) }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mbuf is ours, and nobody looks at it any more.
        unsafe { shim::pollux_free(self.0.mbuf) };
    }
}

/// A receive and a transmit queue of a port.
pub(super) struct Queue {
    port: PortId,
    number: u16,
    pool: Pool,
    /// Frames that wait for [`Queue::kick`].
    waiting: Vec<*mut shim::rte_mbuf>,
    /// Some of them have sums to be filled in by the port.
    prepare: bool,
}

// SAFETY: a queue may move between threads; the pointers it holds are mbufs that it alone owns.
unsafe impl Send for Queue {}

impl Queue {
    /// Queue `number` of an open port, transmitting from `pool`; `batch` frames may wait.
    pub(super) fn new(port: PortId, number: u16, pool: Pool, batch: usize) -> Queue {
        Queue { port, number, pool, waiting: Vec::with_capacity(batch), prepare: false }
    }

    /// Appends a burst of `most` frames to `into`, which has room for them, and returns how many; chains that could not
    /// be made contiguous are dropped and added to `dropped`.
    #[inline]
    pub(super) fn receive(&mut self, into: &mut Vec<Frame>, most: usize, dropped: &mut u64) -> usize {
        let room = into.spare_capacity_mut();
        let most = most.min(room.len()) as u16;
        let place: *mut shim::pollux_frame = room.as_mut_ptr().cast();
        // SAFETY: `Frame` is a transparent wrapper of the shim's frame, and the vector has room for `most` of them. This
        // queue is used by one thread at a time: it is borrowed mutably.
        let got = unsafe { shim::pollux_receive(self.port.0, self.number, place, most, &raw mut *dropped) };
        assert!(got <= most, "more frames than there was room for");
        // SAFETY: the shim has filled that many.
        unsafe { into.set_len(into.len() + usize::from(got)) };
        usize::from(got)
    }

    /// An empty frame of `len` bytes.
    #[inline]
    pub(super) fn frame(&mut self, len: usize) -> Option<Frame> {
        // SAFETY: zeroes are valid for the plain struct; the shim fills it when it returns 1.
        unsafe {
            let mut frame = std::mem::zeroed();
            let got = shim::pollux_alloc(self.pool.0.as_ptr(), len as u32, &raw mut frame);
            (got == 1).then(|| Frame(frame))
        }
    }

    /// True when no further frame may wait.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() == self.waiting.capacity()
    }

    /// Has the port fill in the TCP checksum of a frame whose headers have these lengths.
    pub(super) fn request_sum(&mut self, frame: &mut Frame, layout: &super::checksum::Layout) {
        let bytes = frame.as_ref();
        let tcp = u16::from(bytes[layout.ethernet + layout.ip + 12] >> 4) * 4;
        let (ethernet, ip) = (layout.ethernet as u16, layout.ip as u16);
        // SAFETY: the mbuf is ours.
        unsafe { shim::pollux_request_sum(frame.0.mbuf, ethernet, ip, tcp, i32::from(layout.v6)) };
        self.prepare = true;
    }

    /// A frame to be handed to the hardware with the next kick.
    #[inline]
    pub(super) fn push(&mut self, frame: Frame) {
        assert!(!self.is_full(), "the caller asked whether there is room");
        self.waiting.push(std::mem::ManuallyDrop::new(frame).0.mbuf);
    }

    /// Hands waiting frames over until the hardware takes no more; returns how many it took.
    pub(super) fn kick(&mut self) -> usize {
        let mut taken = 0;
        while taken < self.waiting.len() {
            let rest = &mut self.waiting[taken..];
            // SAFETY: the list holds mbufs that are ours; those the driver takes are forgotten below.
            let n = unsafe {
                shim::pollux_transmit(
                    self.port.0,
                    self.number,
                    rest.as_mut_ptr(),
                    rest.len() as u16,
                    i32::from(self.prepare),
                )
            };
            if n == 0 {
                break;
            }
            taken += usize::from(n);
        }
        self.waiting.drain(..taken);
        self.prepare &= !self.waiting.is_empty();
        taken
    }

    /// Counters of the whole port.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.port.counts()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for mbuf in self.waiting.drain(..) {
            // SAFETY: it waited here, so it is ours.
            unsafe { shim::pollux_free(mbuf) };
        }
    }
}
