//! Messages between cores, and between the cores and the control thread: one bounded single-producer single-consumer
//! ring per ordered pair, so that a core's sends contend with nobody's. A receiver that is awake finds messages by
//! looking; one that sleeps is woken through an eventfd, and only then does a sender pay for a system call.
//!
//! # The sleep protocol
//! A lost wake-up would need a receiver that sleeps without seeing a message whose sender saw it awake. Both sides write
//! first and read afterwards, with a sequentially consistent fence between:
//!
//! ```text
//! receiver: asleep = true ; fence ; look into every ring ; sleep only if all are empty
//! sender:   put message   ; fence ; look at asleep       ; signal if it was true
//! ```
//!
//! Fences are totally ordered. If the receiver's comes first, the sender's look comes after `asleep = true` and it
//! signals; if the sender's comes first, the receiver's look comes after the message and it does not sleep. The eventfd
//! keeps a signal that arrives between the look and the sleep.

use crate::base::CoreId;
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Messages taken from one sender per turn, so that a flood from one core can not starve the others or the turn.
pub const BATCH: usize = 64;

/// Who sent a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Another core.
    Core(CoreId),
    /// The control thread.
    Control,
}

/// How a sleeping receiver is woken.
#[repr(align(128))]
pub(super) struct Bell {
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Bell { asleep: AtomicBool::new(false), fd })
    }

    /// Sender: everything sent so far will be seen by the receiver, asleep or not.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.signal();
        }
    }

    /// Wakes the receiver now or makes its next sleep end at once.
    pub(super) fn signal(&self) {
        // Fails only when the counter is full, which means that the receiver has a signal waiting.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Receiver: about to look for messages one last time before sleeping.
    pub(super) fn prepare(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Receiver: awake again; forgets old signals.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }

    /// True while the receiver sleeps or is about to.
    pub(super) fn sleeping(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Readable once the receiver has been signalled.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One participant's ends of all its rings. Participants `0..cores` are the cores, the last one is the control thread.
pub(super) struct Ends<M> {
    me: usize,
    incoming: Vec<Option<Consumer<M>>>,
    outgoing: Vec<Option<Producer<M>>>,
    bells: Arc<[Bell]>,
    /// Receivers to be told about what was sent since the last [`Ends::ring`], one bit each.
    told: u128,
    /// Something was sent or received since [`Ends::begin`].
    active: bool,
    /// Which sender is looked at first this turn, which one now, and how much more may come from it.
    first: usize,
    offset: usize,
    left: usize,
}

/// All participants' ends: rings of `capacity` messages between every two of `cores` cores and the control thread.
pub(super) fn mesh<M>(cores: usize, capacity: usize) -> io::Result<Vec<Ends<M>>> {
    assert!((1..=crate::base::limits::CORES_MAX).contains(&cores), "cores out of range");
    let n = cores + 1;
    let bells: Arc<[Bell]> = (0..n).map(|_| Bell::new()).collect::<io::Result<Vec<_>>>()?.into();
    let mut ends: Vec<Ends<M>> = (0..n)
        .map(|me| Ends {
            me,
            incoming: (0..n).map(|_| None).collect(),
            outgoing: (0..n).map(|_| None).collect(),
            bells: Arc::clone(&bells),
            told: 0,
            active: false,
            first: 0,
            offset: 0,
            left: BATCH,
        })
        .collect();
    for from in 0..n {
        for to in (0..n).filter(|to| *to != from) {
            let (producer, consumer) = RingBuffer::new(capacity);
            ends[from].outgoing[to] = Some(producer);
            ends[to].incoming[from] = Some(consumer);
        }
    }
    Ok(ends)
}

impl<M> Ends<M> {
    /// Participants, the control thread included.
    fn count(&self) -> usize {
        self.incoming.len()
    }

    /// Sends to participant `to`, or gives the message back when its ring is full. The receiver is told at the next
    /// [`Ends::ring`] if it sleeps.
    pub(super) fn send(&mut self, to: usize, message: M) -> Result<(), M> {
        let ring = self.outgoing[to].as_mut().expect("a participant sends no messages to itself");
        match ring.push(message) {
            Ok(()) => {
                self.told |= 1 << to;
                self.active = true;
                Ok(())
            }
            Err(PushError::Full(message)) => Err(message),
        }
    }

    /// Messages that `to` can still be sent before its ring is full.
    pub(super) fn room(&self, to: usize) -> usize {
        self.outgoing[to].as_ref().map_or(0, Producer::slots)
    }

    /// Wakes every sleeping receiver of what was sent since the last call.
    pub(super) fn ring(&mut self) {
        while self.told != 0 {
            let to = self.told.trailing_zeros() as usize;
            self.told &= self.told - 1;
            self.bells[to].ring();
        }
    }

    /// Begins a turn: every sender may be heard [`BATCH`] times again, another one first.
    pub(super) fn begin(&mut self) {
        self.first = if self.first + 1 == self.count() { 0 } else { self.first + 1 };
        (self.offset, self.left, self.active) = (0, BATCH, false);
    }

    /// The next message of this turn.
    pub(super) fn receive(&mut self) -> Option<(Peer, M)> {
        while self.offset < self.count() {
            let at = self.first + self.offset;
            let sender = if at >= self.count() { at - self.count() } else { at };
            if self.left > 0
                && let Some(ring) = &mut self.incoming[sender]
                && let Ok(message) = ring.pop()
            {
                self.left -= 1;
                self.active = true;
                return Some((self.name(sender), message));
            }
            self.offset += 1;
            self.left = BATCH;
        }
        None
    }

    fn name(&self, participant: usize) -> Peer {
        if participant + 1 == self.count() { Peer::Control } else { Peer::Core(CoreId(participant as u16)) }
    }

    /// True when no ring holds a message for this participant.
    pub(super) fn is_empty(&self) -> bool {
        self.incoming.iter().flatten().all(Consumer::is_empty)
    }

    /// True when this turn neither sent nor received anything and nothing waits.
    pub(super) fn at_rest(&self) -> bool {
        !self.active && self.is_empty()
    }

    /// This participant's bell.
    pub(super) fn bell(&self) -> &Bell {
        &self.bells[self.me]
    }

    /// Everybody's bells, the control thread's last.
    pub(super) fn bells(&self) -> Arc<[Bell]> {
        Arc::clone(&self.bells)
    }

    /// Takes the sending half away, for a participant whose halves live in different places.
    pub(super) fn split(mut self) -> (Ends<M>, Ends<M>) {
        let n = self.count();
        let outgoing = std::mem::replace(&mut self.outgoing, (0..n).map(|_| None).collect());
        let incoming = (0..n).map(|_| None).collect();
        let sending = Ends { incoming, outgoing, bells: Arc::clone(&self.bells), ..self };
        (sending, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::time::{Duration, Instant};

    #[test]
    fn turns_are_bounded_and_fair() {
        let mut ends = mesh::<u32>(3, 200).unwrap();
        for n in 0..200 {
            ends[1].send(0, n).unwrap();
        }
        assert_eq!(ends[1].send(0, 7), Err(7), "full is a value");
        assert_eq!((ends[1].room(0), ends[1].room(2)), (0, 200));
        ends[3].send(0, 1000).unwrap();
        let me = &mut ends[0];
        let mut seen = Vec::new();
        for _ in 0..4 {
            me.begin();
            let turn: Vec<(Peer, u32)> = std::iter::from_fn(|| me.receive()).collect();
            assert!(turn.len() <= BATCH + 1);
            seen.extend(turn);
        }
        assert!(seen[..=BATCH].contains(&(Peer::Control, 1000)), "one sender's flood does not delay another");
        let from_one: Vec<u32> = seen.iter().filter(|m| m.0 == Peer::Core(CoreId(1))).map(|m| m.1).collect();
        assert_eq!(from_one, (0..200).collect::<Vec<_>>());
        assert!(me.is_empty());
    }

    /// Receivers sleep whenever they find nothing. A lost wake-up shows as a sleep that only its time-out ends.
    #[test]
    fn no_wake_up_is_lost() {
        const COUNT: u64 = 20_000;
        let mut ends = mesh::<u64>(2, 8).unwrap();
        let control = ends.pop().unwrap();
        let threads: Vec<_> = ends
            .into_iter()
            .enumerate()
            .map(|(i, ends)| std::thread::spawn(move || ping(ends, i as u64, 1 - i, COUNT)))
            .collect();
        let late: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(late, 0, "a message was waiting while its receiver slept");
        drop(control);
    }

    /// Sends `count` numbers and checks as many, never more than a few ahead of the peer; sleeps whenever neither can be
    /// done. Returns how many sleeps ended by time-out with a message waiting.
    fn ping(mut ends: Ends<u64>, seed: u64, peer: usize, count: u64) -> u64 {
        let mut rng = Rng::new(seed);
        let (mut sent, mut got, mut late) = (0, 0, 0);
        let deadline = Instant::now() + Duration::from_secs(59);
        while sent < count || got < count {
            assert!(Instant::now() < deadline, "stuck at {sent} sent, {got} received");
            ends.begin();
            let ahead = 1 + rng.below(6);
            while sent < count && sent < got + ahead && ends.send(peer, sent).is_ok() {
                sent += 1;
            }
            ends.ring();
            while let Some((_, n)) = ends.receive() {
                assert_eq!(n, got, "in order, none lost, none twice");
                got += 1;
            }
            if ends.at_rest() && got < count {
                late += u64::from(sleep(&ends));
            }
        }
        late
    }

    fn sleep(ends: &Ends<u64>) -> bool {
        ends.bell().prepare();
        let mut timed_out = false;
        if ends.is_empty() {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(ends.bell().fd(), rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            timed_out = rustix::event::poll(&mut fds, Some(&limit)).unwrap() == 0;
        }
        let missed = timed_out && !ends.is_empty() && ends.bell().sleeping();
        ends.bell().awake();
        missed
    }
}
