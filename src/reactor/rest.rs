//! How cores agree that all work has ended, messages under way included, when the node stops.
//!
//! A core that has nothing left may still be asked by another one, so it must not leave because of its own state alone.
//! Every turn that is not at rest raises a shared number when it ends. A core that had a whole turn at rest notes the
//! number it saw before that turn. When all notes equal the number, all work has ended:
//!
//! - every message was sent in some turn that was not at rest, and that turn has raised the number since;
//! - so, when the number reached its present value, every message was already in its ring;
//! - and after that each core has had a turn that found its rings empty.

use std::sync::atomic::{AtomicU64, Ordering};

/// A core that is not there any more (it ended, or panicked) is always at rest.
const GONE: u64 = u64::MAX;
/// No turn at rest yet.
const NEVER: u64 = u64::MAX - 1;

/// What the cores know of each other's rest.
pub(super) struct Rest {
    unrest: AtomicU64,
    quiet: Vec<AtomicU64>,
}

impl Rest {
    pub(super) fn new(cores: usize) -> Rest {
        Rest { unrest: AtomicU64::new(0), quiet: (0..cores).map(|_| AtomicU64::new(NEVER)).collect() }
    }

    /// Before a turn: what to hand to [`Rest::turn`] after it.
    pub(super) fn seen(&self) -> u64 {
        self.unrest.load(Ordering::SeqCst)
    }

    /// A turn of `core` has ended, at rest or not. True when all cores are at rest, which then stays so.
    pub(super) fn turn(&self, core: usize, seen: u64, at_rest: bool) -> bool {
        if !at_rest {
            self.unrest.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        self.quiet[core].store(seen, Ordering::SeqCst);
        let now = self.seen();
        self.quiet.iter().all(|q| matches!(q.load(Ordering::SeqCst), n if n == now || n == GONE))
    }

    /// `core` leaves, however it came to that.
    pub(super) fn leave(&self, core: usize) {
        self.quiet[core].store(GONE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_needs_a_quiet_turn_of_everybody_after_the_last_unrest() {
        let rest = Rest::new(3);
        let (a, b) = (rest.seen(), rest.seen());
        assert!(!rest.turn(0, a, true), "the others have not been heard");
        assert!(!rest.turn(1, b, false), "worked");
        let c = rest.seen();
        assert!(!rest.turn(2, c, true));
        assert!(!rest.turn(1, c, true), "core 0 rested before core 1 worked");
        assert!(rest.turn(0, rest.seen(), true));
        assert!(rest.turn(1, rest.seen(), true), "and it stays so");
        let late = rest.seen();
        assert!(!rest.turn(0, late, false));
        rest.leave(0);
        assert!(!rest.turn(1, late, true), "seen before the unrest");
        assert!(!rest.turn(2, rest.seen(), true));
        assert!(rest.turn(1, rest.seen(), true), "who is gone is at rest");
    }
}
