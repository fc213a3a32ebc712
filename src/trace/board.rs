//! Numbers that one core writes and anybody may read at any time, even while the core sleeps or hangs. The writer
//! never waits: it marks the board as changing, stores the words, and marks it settled; a reader that met a change
//! looks again. All words are atomics, so a torn look is only a look to be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The shared side: `N` numbers that belong together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Board<const N: usize> {
    /// Odd while the writer is at work.
    version: AtomicU64,
    words: [AtomicU64; N],
}

/// The one writer of a board.
#[derive(Debug)]
pub struct BoardWriter<const N: usize>(Arc<Board<N>>);

impl<const N: usize> Board<N> {
    /// A board of zeroes and its writer.
    pub fn pair() -> (BoardWriter<N>, Arc<Board<N>>) {
        let board = Arc::new(Board { version: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) });
        (BoardWriter(Arc::clone(&board)), board)
    }

    /// The numbers of one and the same publication; `None` when the writer was at work at each of a few looks (it
    /// stores `N` words at a time, so the next call finds a quiet moment).
    pub fn read(&self) -> Option<[u64; N]> {
        for _ in 0..64 {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let words = std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
                // The words must have been read before the version is looked at again.
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return Some(words);
                }
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl<const N: usize> BoardWriter<N> {
    /// Replaces all numbers.
    #[inline]
    pub fn publish(&mut self, words: [u64; N]) {
        let version = self.0.version.load(Ordering::Relaxed);
        self.0.version.store(version + 1, Ordering::Relaxed);
        // No word may be seen changed before the version is seen odd.
        fence(Ordering::Release);
        for (cell, word) in self.0.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        self.0.version.store(version + 2, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_whole_publications_only() {
        const ROUNDS: u64 = 200_000;
        let (mut writer, board) = Board::<4>::pair();
        assert_eq!(board.read(), Some([0; 4]));
        writer.publish([0, 0, !0, 0x55]);
        let reader = std::thread::spawn(move || {
            let mut last = 0;
            while last < ROUNDS {
                let Some([a, b, c, d]) = board.read() else { continue };
                assert!(a >= last && b == a * 3 && c == !a && d == a ^ 0x55, "torn: {a} {b} {c} {d}");
                last = a;
            }
        });
        for n in 1..=ROUNDS {
            writer.publish([n, n * 3, !n, n ^ 0x55]);
        }
        reader.join().unwrap();
    }
}
