//! One register of the store: a logical block, or the description of a volume. It knows every value that was ever
//! given to it, and which of them a reader may still see.
//!
//! Values are ordered by submission. An acknowledged value makes all earlier ones impossible; a value submitted later
//! and not yet acknowledged is possible besides it. A value that was seen makes all earlier ones impossible too: what
//! was once there does not go back.

/// A point in the order of everything the host did; see [`super::Oracle`].
pub type Tick = u64;

const NEVER: Tick = Tick::MAX;

#[derive(Clone, Debug)]
struct Entry<V> {
    value: V,
    op: u32,
    submitted: Tick,
    acked: Tick,
    gone: Tick,
}

/// The values one register was given, in order of submission.
#[derive(Clone, Debug)]
pub struct Register<V>(Vec<Entry<V>>);

impl<V: Clone + PartialEq> Register<V> {
    /// A register that certainly holds `value`.
    pub fn new(value: V) -> Register<V> {
        Register(vec![Entry { value, op: 0, submitted: 0, acked: 0, gone: NEVER }])
    }

    /// Operation `op` (1 or more, each at most once) asks for `value`.
    pub fn submit(&mut self, op: u32, value: V, now: Tick) {
        self.0.push(Entry { value, op, submitted: now, acked: NEVER, gone: NEVER });
    }

    /// It was acknowledged. A register the operation never reached stays as it is.
    pub fn ack(&mut self, op: u32, now: Tick) {
        if let Some(at) = self.0.iter().position(|e| e.op == op) {
            self.0[at].acked = now;
            self.end(now, |i, _| i < at);
        }
    }

    /// It certainly did not and will not take effect.
    pub fn refuse(&mut self, op: u32, now: Tick) {
        self.end(now, |_, e| e.op == op);
    }

    /// True when a reader that asked at `since` may get `value`.
    pub fn may_be(&self, value: &V, since: Tick) -> bool {
        self.0.iter().any(|e| e.gone > since && e.value == *value)
    }

    /// True when `value` was ever asked for, however long ago.
    pub fn ever_was(&self, value: &V) -> bool {
        self.0.iter().any(|e| e.value == *value)
    }

    /// Everything a reader that asks now may get, oldest first.
    pub fn possible(&self) -> impl Iterator<Item = &V> {
        self.0.iter().filter(|e| e.gone == NEVER).map(|e| &e.value)
    }

    /// A reader that asked at `since` got `value`, which [`Register::may_be`]. Where several operations asked for that
    /// value, the earliest one it can have been is the one that proves least.
    pub fn seen(&mut self, value: &V, since: Tick, now: Tick) {
        if let Some(at) = self.0.iter().position(|e| e.gone > since && e.value == *value) {
            self.end(now, |i, _| i < at);
        }
    }

    /// Recovery decided for `value`: nothing else is possible any more, whatever was under way.
    pub fn settle(&mut self, value: &V, now: Tick) {
        let at = self.0.iter().rposition(|e| e.gone == NEVER && e.value == *value);
        self.end(now, |i, _| Some(i) != at);
        if let Some(at) = at {
            self.0[at].acked = self.0[at].acked.min(now);
        }
    }

    /// The register as it was at `cut`, everything later forgotten.
    #[must_use]
    pub fn at(&self, cut: Tick) -> Register<V> {
        let then = self.0.iter().filter(|e| e.submitted <= cut).map(|e| Entry {
            acked: if e.acked <= cut { e.acked } else { NEVER },
            gone: if e.gone <= cut { e.gone } else { NEVER },
            ..e.clone()
        });
        Register(then.collect())
    }

    /// The operations not answered yet whose values are possible.
    pub fn open(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter(|e| e.gone == NEVER && e.acked == NEVER).map(|e| e.op)
    }

    /// The latest operation whose value is possible.
    pub fn last_op(&self) -> u32 {
        self.0.iter().rfind(|e| e.gone == NEVER).map_or(0, |e| e.op)
    }

    /// Everything it was ever asked to be, as text: `op=value@submitted..acknowledged`, a cross behind what is gone.
    pub fn history(&self) -> String
    where
        V: std::fmt::Debug,
    {
        let tick = |t: Tick| if t == NEVER { String::new() } else { t.to_string() };
        let one = |e: &Entry<V>| {
            let gone = if e.gone == NEVER { String::new() } else { format!("x{}", e.gone) };
            format!("{}={:?}@{}..{}{gone}", e.op, e.value, e.submitted, tick(e.acked))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// True when no operation on it is open.
    pub fn settled(&self) -> bool {
        self.possible().count() == 1
    }

    fn end(&mut self, now: Tick, which: impl Fn(usize, &Entry<V>) -> bool) {
        for (i, entry) in self.0.iter_mut().enumerate() {
            if entry.gone == NEVER && which(i, entry) {
                entry.gone = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn possible(r: &Register<char>) -> String {
        r.possible().collect()
    }

    #[test]
    fn the_last_acknowledged_or_any_later_one() {
        let mut r = Register::new('0');
        r.submit(1, 'a', 1);
        r.submit(2, 'b', 2);
        r.submit(3, 'c', 3);
        assert_eq!(possible(&r), "0abc");
        r.ack(2, 4);
        assert_eq!(possible(&r), "bc", "a was ordered before b");
        r.ack(1, 5);
        assert_eq!(possible(&r), "bc");
        assert!(r.may_be(&'a', 3) && !r.may_be(&'a', 4), "a reader that asked before b was acknowledged may see a");
        r.refuse(3, 6);
        assert!(possible(&r) == "b" && r.settled() && r.ever_was(&'a'));
    }

    #[test]
    fn what_was_seen_does_not_go_back() {
        let mut r = Register::new('0');
        r.submit(1, 'a', 1);
        r.submit(2, 'b', 2);
        r.seen(&'a', 3, 3);
        assert_eq!(possible(&r), "ab");
        r.settle(&'a', 4);
        assert_eq!(possible(&r), "a");
    }

    #[test]
    fn a_slow_reader_may_have_seen_the_older_of_two_equal_values() {
        let mut r = Register::new('z');
        r.submit(1, 'a', 1);
        r.ack(1, 2);
        r.submit(2, 'z', 3);
        r.seen(&'z', 0, 4);
        assert_eq!(possible(&r), "az", "it asked before a was written");
        r.seen(&'z', 3, 5);
        assert_eq!(possible(&r), "z");
    }

    #[test]
    fn a_cut_knows_only_what_was_before_it() {
        let mut r = Register::new('0');
        r.submit(1, 'a', 1);
        r.ack(1, 2);
        r.submit(2, 'b', 3);
        r.ack(2, 4);
        assert_eq!(["0", "0a", "a", "ab", "b"].map(String::from), [0, 1, 2, 3, 4].map(|t| possible(&r.at(t))));
    }
}
