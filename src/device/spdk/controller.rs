//! A controller with its thread: the thread completes admin commands, keeps the controller alive, and brings it and its
//! queue pairs back when they fail. Several media (namespaces) share one.
//!
//! A queue pair belongs to its reactor, which only ever tries its lock; the thread asks for it with [`Link::wanted`] and
//! has it while it recovers. So no reactor waits for anything: while its pair is away, its operations wait with it.

use super::ffi;
use super::ffi_controller::{Facts, Handle};
use super::ffi_pair::Pair;
use crate::device::{OpenError, SpdkPlace};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Between two looks at the admin queue when nobody calls.
const POLL: Duration = Duration::from_millis(50);
/// A controller that is not back by then is dead.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Between two tries to bring a controller back.
const RETRY: Duration = Duration::from_millis(250);
/// Between two looks at a pair that its reactor still has.
const HANDOVER: Duration = Duration::from_micros(50);

/// A queue pair as its reactor and the controller's thread share it.
pub(super) struct Link {
    pair: Mutex<Pair>,
    /// The thread wants the pair, or has it.
    wanted: AtomicBool,
    /// The pair failed: it is the thread's until that brought it back, or found it dead.
    failed: AtomicBool,
    /// The target itself was away since the reactor last looked.
    lost: AtomicBool,
}

impl Link {
    pub fn new(pair: Pair) -> Link {
        Link {
            pair: Mutex::new(pair),
            wanted: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// The pair, for its reactor; `None` while the thread has it.
    #[inline]
    pub fn enter(&self) -> Option<MutexGuard<'_, Pair>> {
        if self.wanted.load(Ordering::Acquire) || self.failed.load(Ordering::Acquire) {
            return None;
        }
        self.pair.try_lock().ok()
    }

    /// True when the target was away since this was last asked: what it had only cached may be lost.
    #[inline]
    pub fn take_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) && self.lost.swap(false, Ordering::AcqRel)
    }

    fn seize(&self) -> MutexGuard<'_, Pair> {
        self.wanted.store(true, Ordering::Release);
        loop {
            match self.pair.try_lock() {
                Ok(pair) => return pair,
                Err(_) => std::thread::sleep(HANDOVER),
            }
        }
    }

    fn give_back(&self, pair: MutexGuard<'_, Pair>) {
        drop(pair);
        self.failed.store(false, Ordering::Release);
        self.wanted.store(false, Ordering::Release);
    }
}

/// A namespace in use.
#[derive(Debug)]
pub(super) struct Space {
    pub nsid: u32,
    /// As it was opened; `size` only at that moment.
    pub facts: Facts,
    /// Bytes now.
    pub size: AtomicU64,
    /// It went away, or another one took its place.
    pub gone: AtomicBool,
}

struct Shared {
    place: SpdkPlace,
    handle: Handle,
    links: Mutex<Vec<Weak<Link>>>,
    spaces: Mutex<Vec<Weak<Space>>>,
    /// A pair failed.
    called: AtomicBool,
    stop: AtomicBool,
    dead: AtomicBool,
}

/// A controller; detached when the last of its media and queues is dropped.
pub(super) struct Controller {
    shared: Arc<Shared>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

/// The controllers in use, so that two namespaces of one share it.
static OPEN: Mutex<Option<HashMap<SpdkPlace, Weak<Controller>>>> = Mutex::new(None);

impl Controller {
    /// The controller at `place`, attached now unless it is in use already.
    ///
    /// # Errors
    /// [`OpenError::Spdk`].
    pub fn open(place: &SpdkPlace) -> Result<Arc<Controller>, OpenError> {
        let error = |what, reason| OpenError::Spdk { what, reason };
        let mut open = OPEN.lock().expect("nobody panics with it");
        let open = open.get_or_insert_default();
        open.retain(|_, weak| weak.strong_count() != 0);
        if let Some(controller) = open.get(place).and_then(Weak::upgrade) {
            return Ok(controller);
        }
        let needs = if matches!(place, SpdkPlace::Pcie(_)) { ffi::Needs::Pci } else { ffi::Needs::Sockets };
        ffi::start(needs).map_err(|reason| error("starting its environment", reason))?;
        let hostnqn = if let SpdkPlace::Tcp { hostnqn, .. } = place { hostnqn.as_deref() } else { None };
        let handle =
            Handle::attach(&place.trid(), hostnqn).map_err(|reason| error("attaching to the controller", reason))?;
        let shared = Arc::new(Shared {
            place: place.clone(),
            handle,
            links: Mutex::default(),
            spaces: Mutex::default(),
            called: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new().name("spdk-admin".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        });
        let join = thread.map_err(|e| error("starting a thread", e.to_string()))?;
        let controller = Arc::new(Controller { shared, thread: join.thread().clone(), join: Some(join) });
        open.insert(place.clone(), Arc::downgrade(&controller));
        Ok(controller)
    }

    /// Namespace `nsid`, or the first active one.
    pub fn space(&self, nsid: Option<u32>) -> Result<Arc<Space>, OpenError> {
        let handle = &self.shared.handle;
        let missing = || OpenError::Spdk {
            what: "looking for the namespace",
            reason: nsid.map_or("none is active".to_owned(), |n| format!("{n} is not active")),
        };
        let nsid = nsid.or_else(|| handle.first_active()).ok_or_else(missing)?;
        let facts = handle.facts(nsid).ok_or_else(missing)?;
        let size = AtomicU64::new(facts.size);
        let space = Arc::new(Space { nsid, facts, size, gone: AtomicBool::new(false) });
        let mut spaces = self.shared.spaces.lock().expect("nobody panics with it");
        spaces.retain(|weak| weak.strong_count() != 0);
        spaces.push(Arc::downgrade(&space));
        Ok(space)
    }

    /// A new queue pair, made by `make`.
    pub fn link(&self, make: impl FnOnce(&Handle) -> Result<Pair, i32>) -> Result<Arc<Link>, OpenError> {
        let failed = |errno: i32| OpenError::Spdk { what: "making a queue pair", reason: ffi::why(-errno) };
        let link = Arc::new(Link::new(make(&self.shared.handle).map_err(failed)?));
        let mut links = self.shared.links.lock().expect("nobody panics with it");
        links.retain(|weak| weak.strong_count() != 0);
        links.push(Arc::downgrade(&link));
        Ok(link)
    }

    /// True when it did not come back.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// Hands a failed pair to the thread. Never waits.
    pub fn recover(&self, link: &Link) {
        link.failed.store(true, Ordering::Release);
        self.shared.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("place", &self.shared.place).field("dead", &self.is_dead()).finish()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // A panic of the thread was reported when it happened.
            let _ = join.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            std::thread::park_timeout(POLL);
            let called = self.called.swap(false, Ordering::AcqRel);
            if self.dead.load(Ordering::Acquire) {
                // Pairs made or found failed after the others died.
                if called {
                    self.bury();
                }
                continue;
            }
            let admin = self.handle.poll_admin();
            if self.handle.take_changed() {
                self.look();
            }
            let overdue = self.handle.take_overdue();
            if admin.is_err() || overdue {
                tracing::warn!(place = %self.place.trid(), ?admin, overdue, "resetting the controller");
                self.reset();
            } else if called && !self.reconnect() {
                tracing::warn!(place = %self.place.trid(), "a queue pair does not come back: resetting the controller");
                self.reset();
            }
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().expect("nobody panics with it").iter().filter_map(Weak::upgrade).collect()
    }

    /// Looks what became of the namespaces.
    fn look(&self) {
        let spaces = self.spaces.lock().expect("nobody panics with it");
        for space in spaces.iter().filter_map(Weak::upgrade) {
            let now = self.handle.facts(space.nsid);
            let kept = |f: &Facts| f.identity == space.facts.identity && f.block_size == space.facts.block_size;
            match now.filter(kept) {
                Some(facts) => space.size.store(facts.size, Ordering::Release),
                None => {
                    tracing::error!(place = %self.place.trid(), nsid = space.nsid, "the namespace is gone, or another one");
                    space.gone.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Connects failed pairs again, the controller being well.
    fn reconnect(&self) -> bool {
        // A PCI queue pair fails with its controller only, and what went wrong at a vfio-user endpoint stays wrong.
        if !matches!(self.place, SpdkPlace::Tcp { .. }) {
            return false;
        }
        for link in self.links().iter().filter(|l| l.failed.load(Ordering::Acquire)) {
            let mut pair = link.seize();
            // To be well itself, the admin queue must answer to that: it is what reconnecting asks first.
            if !pair.reconnect() || self.handle.poll_admin().is_err() {
                return false;
            }
            tracing::info!(place = %self.place.trid(), "a queue pair is connected again");
            link.give_back(pair);
        }
        true
    }

    /// Resets the controller, for [`RECOVERY_MAX`] at most; then it is dead.
    fn reset(&self) {
        let links = self.links();
        let mut pairs: Vec<_> = links.iter().map(|link| link.seize()).collect();
        let fabric = matches!(self.place, SpdkPlace::Tcp { .. });
        let start = Instant::now();
        let mut up = false;
        // SPDK does not give up what was under way at a vfio-user endpoint when it resets that.
        while !up && !matches!(self.place, SpdkPlace::VfioUser(_)) && start.elapsed() < RECOVERY_MAX {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            if fabric {
                // A fabric's queues end with its association; new ones get numbers that the controller gives out anew.
                pairs.iter_mut().for_each(|pair| pair.close());
            }
            up = match self.handle.reset() {
                Ok(()) => pairs.iter_mut().all(|pair| pair.reconnect()),
                Err(reason) => {
                    tracing::debug!(place = %self.place.trid(), "reset: {reason}");
                    false
                }
            };
            if !up {
                std::thread::sleep(RETRY);
            }
        }
        if up {
            tracing::info!(place = %self.place.trid(), seconds = start.elapsed().as_secs_f32(), "the controller is back");
            self.look();
        } else {
            tracing::error!(place = %self.place.trid(), "the controller does not come back: it is dead");
            self.dead.store(true, Ordering::Release);
            pairs.iter_mut().for_each(|pair| pair.abandon());
        }
        for (link, pair) in links.iter().zip(pairs) {
            // A reset leaves a disk's cache alone; but the process behind a fabric may be a new one.
            link.lost.store(fabric, Ordering::Release);
            link.give_back(pair);
        }
    }

    /// Gives up all pairs of a dead controller.
    fn bury(&self) {
        for link in self.links() {
            let mut pair = link.seize();
            pair.abandon();
            link.give_back(pair);
        }
    }
}
