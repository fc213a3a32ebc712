//! The reactor's thread: pinned, one turn after the other, asleep when there is nothing to do.

use super::clock::Clock;
use super::control::{ControlReceiver, ControlSender, Reactors, Shared};
use super::idle::Idle;
use super::mailbox::{self, Ends, Peer};
use super::stage::{NOTES, Published, Stall, Watch, add};
use super::{Config, Core, Work};
use crate::base::{CoreId, Time};
use rtrb::RingBuffer;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

/// A deadline nearer than this is waited for awake: going to sleep and coming back takes about as long.
const DOZE_NS: u64 = 100_000;

/// Longest sleep while the node stops.
const STOPPING_NS: u64 = 1_000_000;
/// Descriptors a core can wait on before the list has to grow.
const FDS: usize = 64;
/// How long cores that had started may take to stop when another one could not be built.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Makes one reactor's core, on that reactor's thread.
pub type Builder<C, E> = Box<dyn FnOnce(CoreId) -> Result<C, E> + Send>;

/// Why the reactors did not start. The ones that had are stopped again.
#[derive(Debug, thiserror::Error)]
pub enum StartError<E: std::error::Error> {
    /// An operating system resource was refused.
    #[error("{0}: {1}")]
    Os(&'static str, std::io::Error),
    /// The thread could not be pinned.
    #[error("reactor {0}: CPU {1} is not available to this process")]
    Pin(u16, usize),
    /// The core could not be made.
    #[error("reactor {0}: {1}")]
    Build(u16, E),
}

/// What a core sees of its reactor during one turn.
pub struct Turn<'a, M> {
    /// The time at which the turn began: the only clock a core needs.
    pub now: Time,
    /// The node is stopping: finish what is under way, start nothing, then answer [`Work::Finished`].
    pub stopping: bool,
    core: CoreId,
    cores: usize,
    ends: &'a mut Ends<M>,
    watch: &'a mut Watch,
    clock: &'a mut Clock,
    published: &'a Published,
}

impl<M> Turn<'_, M> {
    /// Whose turn it is.
    pub fn core(&self) -> CoreId {
        self.core
    }
    /// How many reactors there are.
    pub fn cores(&self) -> usize {
        self.cores
    }
    /// The next message of this turn; bounded per sender ([`super::BATCH`]), so a loop over it ends.
    pub fn receive(&mut self) -> Option<(Peer, M)> {
        self.ends.receive()
    }
    /// Sends to another core; gives the message back when its ring is full. A sleeping receiver is woken at the end of
    /// the turn.
    ///
    /// # Panics
    /// When `to` is this core.
    pub fn send(&mut self, to: CoreId, message: M) -> Result<(), M> {
        assert!(to.index() < self.cores, "no such core");
        self.ends.send(to.index(), message)
    }
    /// Sends to the control thread, likewise.
    pub fn send_control(&mut self, message: M) -> Result<(), M> {
        self.ends.send(self.cores, message)
    }
    /// Messages that core `to` can still be sent this turn at least.
    pub fn room(&self, to: CoreId) -> usize {
        self.ends.room(to.index())
    }
    /// The stage of this number (in [`Core::STAGES`]) begins; what took the time until now is charged to the one before.
    pub fn stage(&mut self, stage: usize) {
        self.watch.mark(stage, self.clock, self.published);
    }
}

/// Running reactors and the control thread's ways to and from their cores.
pub struct Started<M> {
    /// The threads.
    pub reactors: Reactors,
    /// Messages to the cores.
    pub to_cores: ControlSender<M>,
    /// Messages from the cores.
    pub from_cores: ControlReceiver<M>,
}

/// Starts one pinned thread per configured CPU and builds a core on each, `builders` in the order of the CPUs. Returns
/// when all run, or none.
pub fn start<C, E>(config: &Config, builders: Vec<Builder<C, E>>) -> Result<Started<C::Message>, StartError<E>>
where
    C: Core + 'static,
    E: std::error::Error + Send + 'static,
{
    let cores = config.cpus.len();
    assert_eq!(builders.len(), cores, "one builder per CPU");
    let mut ends = mailbox::mesh(cores, config.mailbox).map_err(|e| StartError::Os("eventfd", e))?;
    let control = ends.pop().expect("the mesh has the control thread last");
    let shared = Arc::new(Shared::new(&config.cpus, C::STAGES, control.bells()));
    let (report, built) = mpsc::channel();
    let mut reactors = Reactors::new(Arc::clone(&shared));
    for (index, (builder, ends)) in builders.into_iter().zip(ends).enumerate() {
        let core = CoreId(index as u16);
        let (notes, fetch) = RingBuffer::new(NOTES);
        let (shared, report, config) = (Arc::clone(&shared), report.clone(), config.clone());
        let body = move || thread(core, &config, builder, ends, notes, &shared, report);
        let spawned = std::thread::Builder::new().name(format!("reactor-{index}")).spawn(body);
        let thread = spawned.map_err(|e| StartError::Os("thread", e))?;
        reactors.add(thread, fetch);
    }
    drop(report);
    let mut running = 0;
    for result in built {
        match result {
            Ok(()) => running += 1,
            Err(e) => {
                reactors.stop();
                // What a core that had started leaves unfinished here, it never began.
                let _ = reactors.join(STOP_LIMIT);
                return Err(e);
            }
        }
    }
    assert_eq!(running, cores, "a builder panicked");
    let (sending, receiving) = control.split();
    Ok(Started { reactors, to_cores: ControlSender::new(sending), from_cores: ControlReceiver::new(receiving) })
}

/// However the thread ends, the others do not wait for it.
struct Leave<'a>(&'a Shared, CoreId);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.rest.leave(self.1.index());
    }
}

fn thread<C: Core, E: std::error::Error>(
    core: CoreId,
    config: &Config,
    builder: Builder<C, E>,
    ends: Ends<C::Message>,
    notes: rtrb::Producer<Stall>,
    shared: &Shared,
    report: mpsc::Sender<Result<(), StartError<E>>>,
) {
    let _leave = Leave(shared, core);
    let cpu = config.cpus[core.index()];
    // Beyond the size of a CPU set the library aborts instead of refusing.
    let exists = cpu < libc::CPU_SETSIZE as usize;
    if !exists || !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        let _ = report.send(Err(StartError::Pin(core.0, cpu)));
        return;
    }
    // The default slack of 50 microseconds would be added to every sleep.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let built = match builder(core) {
        Ok(built) => built,
        Err(e) => {
            let _ = report.send(Err(StartError::Build(core.0, e)));
            return;
        }
    };
    let _ = report.send(Ok(()));
    // The starter waits until every sender is gone, so that it notices a builder that panicked.
    drop(report);
    let mut clock = Clock::new();
    let now = clock.now();
    let watch = Watch::new(core, C::STAGES, config.stall_ns, now, notes);
    let idle = Idle::new(config.poll);
    let (fds, polled) = (Vec::with_capacity(FDS), Vec::with_capacity(FDS + 1));
    let mut reactor = Reactor { id: core, core: built, ends, watch, clock, idle, shared, fds, polled };
    reactor.run(now);
}

struct Reactor<'a, C: Core> {
    id: CoreId,
    core: C,
    ends: Ends<C::Message>,
    watch: Watch,
    clock: Clock,
    idle: Idle,
    shared: &'a Shared,
    fds: Vec<RawFd>,
    polled: Vec<libc::pollfd>,
}

impl<C: Core> Reactor<'_, C> {
    fn run(&mut self, mut now: Time) {
        let cores = self.shared.cores();
        let published = &self.shared.published[self.id.index()];
        loop {
            let stopping = self.shared.stop.load(Ordering::Relaxed);
            let seen = if stopping { self.shared.rest.seen() } else { 0 };
            self.ends.begin();
            let mut turn = Turn {
                now,
                stopping,
                core: self.id,
                cores,
                ends: &mut self.ends,
                watch: &mut self.watch,
                clock: &mut self.clock,
                published,
            };
            let work = self.core.tick(&mut turn);
            self.ends.ring();
            let end = self.clock.now();
            self.watch.enter(0, end, published);
            let spent = if work == Work::Busy { &published.busy_ns } else { &published.idle_ns };
            add(spent, end.since(now));
            add(&published.turns, 1);
            now = end;
            if stopping {
                let at_rest = work == Work::Finished && self.ends.at_rest();
                if self.shared.rest.turn(self.id.index(), seen, at_rest) {
                    return;
                }
            }
            if work == Work::Busy {
                self.idle.worked();
                continue;
            }
            if self.idle.may_sleep(now) {
                now = self.sleep(now, stopping, published);
            }
        }
    }

    /// Sleeps until something may have to be done; returns the time after it.
    fn sleep(&mut self, now: Time, stopping: bool, published: &Published) -> Time {
        self.fds.clear();
        if !self.core.wait_fds(&mut self.fds) {
            return now;
        }
        let limit = match self.core.next_deadline() {
            Some(at) if at.since(now) < DOZE_NS => return now,
            // While the node stops, cores come back to agree on the end without being asked.
            _ if stopping => Some(STOPPING_NS),
            Some(at) => Some(at.since(now)),
            None => None,
        };
        self.ends.bell().prepare();
        // A stop needs no look here: it signals the bell whether the core sleeps or not.
        if !self.ends.is_empty() {
            self.ends.bell().awake();
            return now;
        }
        add(&published.sleeps, 1);
        self.wait(limit);
        self.ends.bell().awake();
        let woken = self.clock.now();
        self.idle.slept(woken.since(now));
        self.watch.skip(woken, published);
        add(&published.idle_ns, woken.since(now));
        woken
    }

    /// Waits until the bell rings or one of the descriptors is readable, for `limit` ns at most.
    fn wait(&mut self, limit: Option<u64>) {
        let watched = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        self.polled.clear();
        self.polled.push(watched(self.ends.bell().fd().as_raw_fd()));
        self.polled.extend(self.fds.iter().map(|fd| watched(*fd)));
        let limit = limit.map(|ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000).cast_signed(),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the list is valid for its length, the limit is null or a live timespec, and no signal mask is given.
        // A descriptor that is not open is reported as an event, which only ends the sleep, as does an error.
        unsafe { libc::ppoll(self.polled.as_mut_ptr(), self.polled.len() as libc::nfds_t, limit, std::ptr::null()) };
    }
}
