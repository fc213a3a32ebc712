//! The record of everything a run did to its medium, and the replay that stops at any point of it: the base of
//! crash-point enumeration. A point costs a clone of page pointers, not a run.

use super::medium::Piece;
use super::{Image, Medium};

/// One change of a medium's state. Events are numbered from 0 in the order in which they happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// [`Medium::submit`].
    Submit(u64, Vec<Piece>),
    /// [`Medium::execute`].
    Execute(u64),
    /// [`Medium::complete`].
    Complete(u64),
    /// [`Medium::fail`].
    Fail(u64),
    /// [`Medium::flush`].
    Flush(u64),
    /// [`Medium::doom`].
    Doom(u64),
}

impl Event {
    /// Does to `medium` and to what readers see what the event did.
    pub fn apply(&self, medium: &mut Medium, cache: &mut Image) {
        match self {
            Event::Submit(seq, pieces) => medium.submit(*seq, pieces.clone()),
            Event::Execute(seq) => medium.execute(*seq, cache),
            Event::Complete(seq) => medium.complete(*seq),
            Event::Fail(seq) => medium.fail(*seq),
            Event::Flush(barrier) => medium.flush(*barrier),
            Event::Doom(barrier) => medium.doom(*barrier),
        }
    }
}

/// A medium that is taken through a record, event by event.
pub struct Replay<'a> {
    medium: Medium,
    cache: Image,
    events: &'a [Event],
    at: usize,
}

impl<'a> Replay<'a> {
    /// Before the first of `events`, on the medium as it was then.
    pub fn new(medium: Medium, events: &'a [Event]) -> Replay<'a> {
        Replay { cache: medium.durable().clone(), medium, events, at: 0 }
    }
    /// The state after events `0..at()`.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }
    /// How many events were applied.
    pub fn at(&self) -> usize {
        self.at
    }
    /// The event that comes next.
    pub fn next(&self) -> Option<&'a Event> {
        self.events.get(self.at)
    }
    /// Applies it; false at the end.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.next() else { return false };
        event.apply(&mut self.medium, &mut self.cache);
        self.at += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Content;

    #[test]
    fn a_replay_passes_through_the_states_of_the_run() {
        let piece = |offset| vec![Piece { offset, content: Content::all(&[9; 512]) }];
        let events = [
            Event::Submit(0, piece(0)),
            Event::Execute(0),
            Event::Complete(0),
            Event::Submit(1, piece(512)),
            Event::Flush(1),
        ];
        let mut replay = Replay::new(Medium::new(Image::new(4096), false), &events);
        let mut open = Vec::new();
        while replay.step() {
            open.push(replay.medium().unflushed_len());
        }
        assert_eq!(open, [1, 1, 1, 2, 1]);
        assert_eq!(replay.at(), events.len());
    }
}
