//! The last events of a core, oldest overwritten first: what it was doing when something went wrong.

use crate::base::Time;
use std::fmt;

/// What an event is: a name and the meaning of its two numbers. Each layer keeps its kinds as statics beside the code
/// that records them.
#[derive(Debug, PartialEq, Eq)]
pub struct EventKind {
    /// `layer.event`, e.g. `nvmf.connect`.
    pub name: &'static str,
    /// What `a` counts or names; empty when it is not used.
    pub a: &'static str,
    /// What `b` counts or names; empty when it is not used.
    pub b: &'static str,
}

impl EventKind {
    /// A kind, for a static.
    pub const fn new(name: &'static str, a: &'static str, b: &'static str) -> EventKind {
        EventKind { name, a, b }
    }
}

/// One event: 32 bytes, two to a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Time,
    /// What.
    pub kind: &'static EventKind,
    /// First number.
    pub a: u64,
    /// Second number.
    pub b: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} {}", self.time.0 / 1_000_000_000, self.time.0 % 1_000_000_000, self.kind.name)?;
        for (name, value) in [(self.kind.a, self.a), (self.kind.b, self.b)] {
            if !name.is_empty() {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

static NOTHING: EventKind = EventKind::new("", "", "");
const EMPTY: Event = Event { time: Time(0), kind: &NOTHING, a: 0, b: 0 };

/// The last events of one core.
#[derive(Clone, Debug)]
pub struct EventRing {
    events: Box<[Event]>,
    /// Events ever recorded.
    count: u64,
}

impl EventRing {
    /// Room for `capacity` events, rounded up to a power of two (at least 1).
    pub fn new(capacity: usize) -> EventRing {
        EventRing { events: vec![EMPTY; capacity.next_power_of_two()].into_boxed_slice(), count: 0 }
    }

    /// Records an event over the oldest one.
    #[inline]
    pub fn record(&mut self, time: Time, kind: &'static EventKind, a: u64, b: u64) {
        let mask = self.events.len() - 1;
        self.events[self.count as usize & mask] = Event { time, kind, a, b };
        self.count += 1;
    }

    /// What is still there, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        let kept = self.count.min(self.events.len() as u64);
        let mask = self.events.len() - 1;
        (self.count - kept..self.count).map(move |n| &self.events[n as usize & mask])
    }

    /// Events ever recorded, those overwritten since included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Copies everything into `out`, which must have the same capacity.
    pub fn copy_to(&self, out: &mut EventRing) {
        out.events.copy_from_slice(&self.events);
        out.count = self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OPEN: EventKind = EventKind::new("net.open", "conn", "port");
    static IDLE: EventKind = EventKind::new("core.idle", "", "");

    #[test]
    fn the_oldest_are_overwritten() {
        let mut ring = EventRing::new(3);
        assert_eq!(ring.iter().count(), 0);
        for n in 0..6 {
            ring.record(Time(n), &OPEN, n, 0);
        }
        assert!(ring.iter().map(|e| e.a).eq(2..6), "four of them: the capacity was rounded up");
        assert_eq!(ring.count(), 6);
        let mut out = EventRing::new(4);
        ring.copy_to(&mut out);
        ring.record(Time(9), &IDLE, 0, 0);
        assert!(out.iter().map(|e| e.a).eq(2..6));
        assert_eq!(ring.iter().last().unwrap().kind, &IDLE);
    }

    #[test]
    fn events_are_small_and_read_well() {
        assert_eq!(size_of::<Event>(), 32);
        let event = Event { time: Time(1_000_000_042), kind: &OPEN, a: 3, b: 4420 };
        assert_eq!(event.to_string(), "1.000000042 net.open conn=3 port=4420");
        assert_eq!(Event { kind: &IDLE, ..event }.to_string(), "1.000000042 core.idle");
    }
}
