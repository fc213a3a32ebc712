//! What the admin thread and the queues of a controller share: the gate, the namespaces, and what queues ask the admin
//! thread for. Atomics and bounded rings only; the mutexes are for the control thread, when a queue is made or dropped.

use super::dma::Block;
use super::gate::{Gate, Seat};
use super::ring::Ring;
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What queues may ask for and the admin thread not have seen; one that finds no room asks again later.
const ORDERS_MAX: usize = 256;

/// A command that takes too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortOrder {
    /// Its submission queue.
    pub qid: u16,
    /// Its identifier.
    pub cid: u16,
}

/// An I/O queue pair: made at the controller's bring-up, used by one core at a time.
#[derive(Debug)]
pub struct Pair {
    /// Queue number, from 1.
    pub qid: u16,
    /// The queues.
    pub ring: Ring,
    /// PRP lists, one after the other, for each command.
    pub lists: Block,
    /// Bytes per list.
    pub list_bytes: usize,
    /// Its seat at the gate.
    pub seat: Arc<Seat>,
    /// The life of the controller that `ring` was made or restarted in.
    pub life: u32,
}

/// A namespace as its queues see it.
#[derive(Debug)]
pub struct Namespace {
    /// Its number.
    pub nsid: u32,
    /// 2^n bytes per block; never changes.
    pub block_shift: u32,
    size: AtomicU64,
    dead: AtomicBool,
}

impl Namespace {
    /// A namespace of `size` bytes.
    pub fn new(nsid: u32, block_shift: u32, size: u64) -> Namespace {
        Namespace { nsid, block_shift, size: AtomicU64::new(size), dead: AtomicBool::new(false) }
    }
    /// Its size in bytes; never shrinks.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
    /// Notes its present size; returns the size before.
    pub fn grow(&self, size: u64) -> u64 {
        self.size.fetch_max(size, Ordering::Relaxed)
    }
    /// True once a flush failed, or it was taken away or formatted.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
    /// Everything asked of it fails from now on.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

/// Commands completed, by kind of operation, in the order of `OpKind`.
#[derive(Debug, Default)]
pub struct Totals([AtomicU64; 5]);

impl Totals {
    /// Adds a queue's counts.
    pub fn add(&self, counts: &[u64; 5]) {
        for (total, count) in self.0.iter().zip(counts) {
            total.fetch_add(*count, Ordering::Relaxed);
        }
    }
    /// The sums of all queues that were dropped.
    pub fn get(&self) -> [u64; 5] {
        std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed))
    }
}

/// What the admin thread and the queues share.
#[derive(Debug)]
pub struct Shared {
    /// Who may touch the controller.
    pub gate: Gate,
    /// Commands to abort.
    pub aborts: ArrayQueue<AbortOrder>,
    /// Only a reset helps.
    reset: AtomicBool,
    /// One page of zeroes, where Write Zeroes is done by hand.
    pub zeroes: Block,
    /// Commands of the queues that are gone.
    pub totals: Totals,
    namespaces: Mutex<Vec<Arc<Namespace>>>,
    shelf: Mutex<Vec<Pair>>,
    abandoned: Mutex<Vec<Pair>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nothing open yet. `zeroes` is a page of zeroes.
    pub fn new(zeroes: Block) -> Shared {
        Shared {
            gate: Gate::new(),
            aborts: ArrayQueue::new(ORDERS_MAX),
            reset: AtomicBool::new(false),
            zeroes,
            totals: Totals::default(),
            namespaces: Mutex::default(),
            shelf: Mutex::default(),
            abandoned: Mutex::default(),
        }
    }

    /// A queue asks for a reset.
    pub fn ask_reset(&self) {
        self.reset.store(true, Ordering::Release);
    }
    /// Takes the wish for a reset.
    pub fn take_reset(&self) -> bool {
        self.reset.swap(false, Ordering::Acquire)
    }

    /// The namespaces in use.
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        lock(&self.namespaces).clone()
    }
    /// The namespace of that number if it is in use, or else the one `make` gives, in use from now on.
    pub fn namespace(&self, fresh: Namespace) -> Arc<Namespace> {
        let mut all = lock(&self.namespaces);
        // One that died is not come by again.
        if let Some(known) = all.iter().find(|n| n.nsid == fresh.nsid && !n.is_dead()) {
            known.grow(fresh.size());
            return Arc::clone(known);
        }
        let fresh = Arc::new(fresh);
        all.push(Arc::clone(&fresh));
        fresh
    }

    /// A free queue pair.
    pub fn take_pair(&self) -> Option<Pair> {
        lock(&self.shelf).pop()
    }
    /// A queue pair without commands under way is free.
    pub fn put_pair(&self, pair: Pair) {
        lock(&self.shelf).push(pair);
    }
    /// A queue pair whose user left with commands under way: the controller must give it up before it is free.
    pub fn abandon_pair(&self, pair: Pair) {
        lock(&self.abandoned).push(pair);
    }
    /// The abandoned pairs.
    pub fn take_abandoned(&self) -> Vec<Pair> {
        std::mem::take(&mut *lock(&self.abandoned))
    }
}
