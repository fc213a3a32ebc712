//! How the admin thread takes the controller away from the cores for a reset, and gives it back, without a lock: one
//! word that all queues read, and a seat per queue that says that its core may be writing doorbells.
//!
//! What stays true: between [`Gate::stop`] and [`Gate::run`], once all seats are empty, no core touches a queue of the
//! controller; a core that comes late finds the gate closed. A queue without work has left its seat, so a core that
//! sleeps holds nobody up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Low bits of the word; the rest counts the times the controller was enabled.
const STATE: u32 = 3;
const RUNNING: u32 = 0;
const STOPPED: u32 = 1;
const DEAD: u32 = 2;
const ONE: u32 = 4;

/// What a core finds at the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Open; the number tells this life of the controller from others.
    Open(u32),
    /// Closed for a while.
    Closed,
    /// Closed for ever.
    Dead,
}

/// The controller's state as its queues see it.
#[derive(Debug)]
pub struct Gate {
    word: AtomicU32,
}

/// One queue's place.
#[derive(Debug, Default)]
pub struct Seat {
    taken: AtomicBool,
}

impl Gate {
    /// Closed, before the first life.
    pub fn new() -> Gate {
        Gate { word: AtomicU32::new(STOPPED) }
    }

    fn way(word: u32) -> Way {
        match word & STATE {
            RUNNING => Way::Open(word),
            STOPPED => Way::Closed,
            _ => Way::Dead,
        }
    }

    /// True while the life that a core entered in goes on.
    #[inline]
    pub fn still(&self, life: u32) -> bool {
        self.word.load(Ordering::Acquire) == life
    }

    /// True when the controller is dead.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE == DEAD
    }

    /// A core takes its seat, if the gate is open.
    pub fn enter(&self, seat: &Seat) -> Way {
        // One that knocks at a closed gate takes no seat, not even for a moment: the admin thread would see it.
        let way = Gate::way(self.word.load(Ordering::Acquire));
        if !matches!(way, Way::Open(_)) {
            return way;
        }
        // Seat, then word; the admin thread writes the word and then looks at the seats: at least one sees the other.
        seat.taken.store(true, Ordering::SeqCst);
        let way = Gate::way(self.word.load(Ordering::SeqCst));
        if !matches!(way, Way::Open(_)) {
            seat.leave();
        }
        way
    }

    /// Closes the gate.
    pub fn stop(&self) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word & !STATE | STOPPED, Ordering::SeqCst);
    }

    /// Opens the gate to a new life.
    pub fn run(&self) {
        let word = self.word.load(Ordering::Relaxed);
        assert_eq!(word & STATE, STOPPED, "only what was stopped can run");
        self.word.store((word & !STATE).wrapping_add(ONE) | RUNNING, Ordering::SeqCst);
    }

    /// Closes the gate for ever. The controller no longer reaches memory by then.
    pub fn die(&self) {
        self.word.store(DEAD, Ordering::SeqCst);
    }
}

impl Seat {
    /// The core touches its queue no more until it enters again.
    #[inline]
    pub fn leave(&self) {
        self.taken.store(false, Ordering::Release);
    }
    /// True while a core may be touching its queue.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn lives_are_told_apart() {
        let (gate, seat) = (Gate::new(), Seat::default());
        assert_eq!((gate.enter(&seat), seat.is_taken()), (Way::Closed, false));
        gate.run();
        let Way::Open(first) = gate.enter(&seat) else { panic!("closed") };
        assert!(gate.still(first) && seat.is_taken());
        gate.stop();
        assert!(!gate.still(first));
        seat.leave();
        assert_eq!(gate.enter(&seat), Way::Closed);
        gate.run();
        let Way::Open(second) = gate.enter(&seat) else { panic!("closed") };
        assert!(gate.still(second) && !gate.still(first) && !gate.is_dead());
        gate.die();
        assert!(gate.is_dead() && gate.enter(&seat) == Way::Dead && !seat.is_taken());
    }

    #[test]
    fn nobody_is_inside_while_it_is_stopped() {
        let (gate, seats) = (Gate::new(), [Seat::default(), Seat::default()]);
        let (inside, end) = (AtomicU64::new(0), AtomicBool::new(false));
        gate.run();
        std::thread::scope(|s| {
            for seat in &seats {
                let (gate, inside, end) = (&gate, &inside, &end);
                s.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        if let Way::Open(life) = gate.enter(seat) {
                            for _ in 0..20 {
                                inside.fetch_add(1, Ordering::SeqCst);
                                inside.fetch_sub(1, Ordering::SeqCst);
                                if !gate.still(life) {
                                    break;
                                }
                            }
                            seat.leave();
                        }
                    }
                });
            }
            for _ in 0..500 {
                gate.stop();
                while seats.iter().any(Seat::is_taken) {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                }
                assert!((0..50).all(|_| inside.load(Ordering::SeqCst) == 0));
                gate.run();
            }
            end.store(true, Ordering::Relaxed);
        });
    }
}
