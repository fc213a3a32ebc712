//! What both clients keep of their connections: which stream each of the net's connections is, and when a target that
//! was lost is tried again. Owned by one client each.

use crate::base::Time;
use crate::net::ConnId;

/// Between two attempts to connect again, ms.
const RETRY_MS: u64 = 100;

/// Which of a client's streams a connection of the net is.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By the connection's slot: its generation, and the number of the stream.
    by_slot: Vec<Option<(u32, u16)>>,
}

impl Links {
    /// `conn` is stream `index` from now on.
    pub(super) fn put(&mut self, conn: ConnId, index: u16) {
        let slot = conn.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        self.by_slot[slot] = Some((conn.generation, index));
    }

    /// The stream that `conn` is; `None` for a connection of an earlier attempt.
    pub(super) fn index_of(&self, conn: ConnId) -> Option<usize> {
        match self.by_slot.get(conn.slot as usize) {
            Some(Some((generation, index))) if *generation == conn.generation => Some(usize::from(*index)),
            _ => None,
        }
    }

    /// Forgets every connection: what they still say is nobody's.
    pub(super) fn clear(&mut self) {
        self.by_slot.clear();
    }
}

/// When a lost target is tried again, and until when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Comeback {
    next_and_last: Option<(Time, Time)>,
}

impl Comeback {
    /// The target is lost at `now`. True when it may be tried again: within `reconnect_ms` of the first loss since the
    /// last [`Comeback::settle`].
    pub(super) fn lost(&mut self, now: Time, reconnect_ms: u64) -> bool {
        let last = self.next_and_last.map_or_else(|| now.after_ms(reconnect_ms), |(_, last)| last);
        let again = reconnect_ms > 0 && now < last;
        self.next_and_last = again.then(|| (now.after_ms(RETRY_MS), last));
        again
    }

    /// True when an attempt is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next_and_last.is_some_and(|(next, _)| now >= next)
    }

    /// The target is back, or given up: the next loss counts anew.
    pub(super) fn settle(&mut self) {
        self.next_and_last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_an_earlier_attempt_is_nobodys() {
        let mut links = Links::default();
        let conn = |slot, generation| ConnId { slot, generation };
        links.put(conn(3, 7), 1);
        assert_eq!(
            [conn(3, 7), conn(3, 6), conn(2, 7), conn(9, 7)].map(|c| links.index_of(c)),
            [Some(1), None, None, None]
        );
        links.put(conn(3, 8), 0);
        assert_eq!([conn(3, 7), conn(3, 8)].map(|c| links.index_of(c)), [None, Some(0)]);
        links.clear();
        assert_eq!(links.index_of(conn(3, 8)), None);
    }

    #[test]
    fn attempts_end_so_long_after_the_first_loss() {
        let mut comeback = Comeback::default();
        let at = |ms| Time(0).after_ms(ms);
        assert!(!comeback.lost(at(0), 0) && !comeback.is_due(at(1000)), "not asked for");
        assert!(comeback.lost(at(1000), 250));
        assert!(!comeback.is_due(at(1099)) && comeback.is_due(at(1100)));
        assert!(comeback.lost(at(1200), 250), "counted from the first loss");
        assert!(!comeback.lost(at(1250), 250) && !comeback.is_due(at(5000)), "over");
        assert!(comeback.lost(at(2000), 250));
        comeback.settle();
        assert!(comeback.lost(at(9000), 250), "it was back in between");
    }
}
