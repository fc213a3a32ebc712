//! The control thread's side: sending to cores, awaiting their messages, reading their clocks, stopping them.

use super::Clock;
use super::mailbox::{Bell, Ends, Peer};
use super::rest::Rest;
use super::stage::{Published, Stall};
use crate::base::{CoreId, Time};
use rtrb::Consumer;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Stalls remembered for whoever asks.
const REMEMBERED: usize = 32;

/// What reactors and control thread share besides the rings: flags and numbers.
pub(super) struct Shared {
    cpus: Vec<usize>,
    stages: &'static [&'static str],
    pub(super) published: Vec<Published>,
    bells: Arc<[Bell]>,
    pub(super) stop: AtomicBool,
    pub(super) rest: Rest,
}

impl Shared {
    pub(super) fn new(cpus: &[usize], stages: &'static [&'static str], bells: Arc<[Bell]>) -> Shared {
        Shared {
            cpus: cpus.to_vec(),
            stages,
            published: cpus.iter().map(|_| Published::default()).collect(),
            bells,
            stop: AtomicBool::new(false),
            rest: Rest::new(cpus.len()),
        }
    }

    pub(super) fn cores(&self) -> usize {
        self.cpus.len()
    }

    /// Ends every core's sleep, the present one or the next.
    pub(super) fn ring_all(&self) {
        fence(Ordering::SeqCst);
        for bell in &self.bells[..self.cores()] {
            bell.signal();
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ring_all();
    }
}

/// A reactor's numbers since its start, as `framework_get_reactors` shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreStats {
    /// Which reactor.
    pub core: CoreId,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Nanoseconds in turns that did work.
    pub busy_ns: u64,
    /// Nanoseconds in turns that found nothing, and asleep.
    pub idle_ns: u64,
    /// Turns.
    pub turns: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// It sleeps now, until an event (SPDK calls this "in interrupt mode").
    pub in_interrupt: bool,
    /// Stages that held the core longer than the limit.
    pub stalls: u64,
    /// Nanoseconds per stage of a tick.
    pub stages: Vec<StageTime>,
}

/// The time spent in one stage of a core's ticks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageTime {
    /// The stage's name.
    pub name: &'static str,
    /// Nanoseconds since the start of the reactor.
    pub ns: u64,
}

/// A core that is in the middle of a stage for longer than the limit right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// Which reactor.
    pub core: CoreId,
    /// In which stage.
    pub stage: &'static str,
    /// For how long so far, ns.
    pub ns: u64,
}

/// The running reactors.
pub struct Reactors {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    notes: Vec<Consumer<Stall>>,
    remembered: VecDeque<Stall>,
    clock: Clock,
}

impl Reactors {
    pub(super) fn new(shared: Arc<Shared>) -> Reactors {
        Reactors {
            shared,
            threads: Vec::new(),
            notes: Vec::new(),
            remembered: VecDeque::with_capacity(REMEMBERED),
            clock: Clock::new(),
        }
    }

    pub(super) fn add(&mut self, thread: JoinHandle<()>, notes: Consumer<Stall>) {
        self.threads.push(thread);
        self.notes.push(notes);
    }

    /// How many there are.
    pub fn cores(&self) -> usize {
        self.shared.cores()
    }

    /// Every reactor's numbers.
    pub fn stats(&self) -> Vec<CoreStats> {
        let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let one = |(index, p): (usize, &Published)| CoreStats {
            core: CoreId(index as u16),
            cpu: self.shared.cpus[index],
            busy_ns: read(&p.busy_ns),
            idle_ns: read(&p.idle_ns),
            turns: read(&p.turns),
            sleeps: read(&p.sleeps),
            in_interrupt: self.shared.bells[index].sleeping(),
            stalls: read(&p.stalls),
            stages: self.stage_times(p),
        };
        self.shared.published.iter().enumerate().map(one).collect()
    }

    fn stage_times(&self, p: &Published) -> Vec<StageTime> {
        let times = self.shared.stages.iter().zip(&p.stage_ns);
        times.map(|(name, ns)| StageTime { name, ns: ns.load(Ordering::Relaxed) }).collect()
    }

    /// Fetches the stalls noted since the last call, writes each to the log, and returns the last few of all. To be
    /// called now and then by the control thread.
    pub fn stalls(&mut self) -> impl Iterator<Item = &Stall> {
        self.fetch_stalls();
        self.remembered.iter()
    }

    fn fetch_stalls(&mut self) {
        for notes in &mut self.notes {
            while let Ok(stall) = notes.pop() {
                let (core, stage, us) = (stall.core.0, stall.stage, stall.ns / 1000);
                tracing::warn!(core, stage, us, "a stage held its reactor too long");
                if self.remembered.len() == REMEMBERED {
                    self.remembered.pop_front();
                }
                self.remembered.push_back(stall);
            }
        }
    }

    /// Reactors that are awake and have been in one stage for more than `limit_ns`: a stall that has not ended yet, and
    /// so can not report itself.
    pub fn stuck(&mut self, limit_ns: u64) -> Vec<Stuck> {
        let now = self.clock.now();
        let look = |(index, p): (usize, &Published)| {
            let since = Time(p.stage_at.load(Ordering::Relaxed));
            let ns = now.since(since);
            let stage = self.shared.stages[p.stage.load(Ordering::Relaxed)];
            let awake = !self.shared.bells[index].sleeping();
            (awake && since.0 != 0 && ns > limit_ns).then_some(Stuck { core: CoreId(index as u16), stage, ns })
        };
        self.shared.published.iter().enumerate().filter_map(look).collect()
    }

    /// Asks every core to finish. They go on exchanging messages until all have.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits for the threads to end, at most `limit`. `Err` names the cores that have not ended or that panicked; those
    /// still running are left behind.
    pub fn join(mut self, limit: Duration) -> Result<(), Vec<CoreId>> {
        let deadline = Instant::now() + limit;
        let threads = std::mem::take(&mut self.threads);
        let mut failed = Vec::new();
        for (index, thread) in threads.into_iter().enumerate() {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() || thread.join().is_err() {
                failed.push(CoreId(index as u16));
            }
        }
        self.fetch_stalls();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        // Without its handle nobody could stop a reactor any more.
        self.shared.stop();
    }
}

/// Sends to cores from the control thread (and whatever it starts). Clones share one ring per core.
pub struct ControlSender<M>(Arc<Mutex<Ends<M>>>);

impl<M> Clone for ControlSender<M> {
    fn clone(&self) -> ControlSender<M> {
        ControlSender(Arc::clone(&self.0))
    }
}

impl<M> ControlSender<M> {
    pub(super) fn new(ends: Ends<M>) -> ControlSender<M> {
        ControlSender(Arc::new(Mutex::new(ends)))
    }

    /// Sends to a core and wakes it if it sleeps; gives the message back when the ring is full.
    pub fn try_send(&self, to: CoreId, message: M) -> Result<(), M> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = ends.send(to.index(), message);
        ends.ring();
        sent
    }

    /// Sends to a core, waiting for room.
    pub async fn send(&self, to: CoreId, mut message: M) {
        while let Err(back) = self.try_send(to, message) {
            message = back;
            // A core empties its ring every turn; a full one is rare and short.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The control thread's bell, as tokio wants to see it.
struct BellFd(Arc<[Bell]>);

impl AsFd for BellFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0[self.0.len() - 1].fd()
    }
}

impl AsRawFd for BellFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// What the cores tell the control thread.
pub struct ControlReceiver<M> {
    ends: Ends<M>,
    ready: Option<AsyncFd<BellFd>>,
}

impl<M> ControlReceiver<M> {
    pub(super) fn new(ends: Ends<M>) -> ControlReceiver<M> {
        ControlReceiver { ends, ready: None }
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<(Peer, M)> {
        if let Some(message) = self.ends.receive() {
            return Some(message);
        }
        self.ends.begin();
        self.ends.receive()
    }

    /// The next message. Cancel safe: a message is taken only when it is returned.
    ///
    /// # Errors
    /// When the runtime can not watch the eventfd.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn recv(&mut self) -> std::io::Result<(Peer, M)> {
        loop {
            if let Some(message) = self.try_recv() {
                return Ok(message);
            }
            self.ends.bell().prepare();
            if !self.ends.is_empty() {
                self.ends.bell().awake();
                continue;
            }
            if self.ready.is_none() {
                let bell = BellFd(self.ends.bells());
                // SAFETY: the AsyncFd owns a share of the bells, which keeps the eventfd open as long as it lives.
                let ready = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
                self.ready = Some(ready.map_err(std::io::Error::from)?);
            }
            let Some(ready) = &self.ready else { unreachable!("set above") };
            ready.readable().await?.clear_ready();
            self.ends.bell().awake();
        }
    }
}
