//! The table of a net's connections: dense slots with a generation each, so that an id or an event of an earlier use
//! of a slot is never taken for the present one. Used by every engine.

use super::ConnId;

struct Slot<T> {
    generation: u32,
    item: Option<T>,
}

/// Connections by slot; grows up to a limit and then refuses.
pub(super) struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Vec<u32>,
    used: usize,
    max: usize,
}

impl<T> Slots<T> {
    /// An empty table of at most `max` connections.
    pub(super) fn new(max: usize) -> Slots<T> {
        Slots { entries: Vec::new(), free: Vec::new(), used: 0, max }
    }

    /// The id that the next [`Slots::insert`] will give; `None` when the table is full.
    pub(super) fn next_id(&self) -> Option<ConnId> {
        match self.free.last() {
            Some(slot) => Some(ConnId { slot: *slot, generation: self.entries[*slot as usize].generation }),
            None if self.entries.len() < self.max => Some(ConnId { slot: self.entries.len() as u32, generation: 0 }),
            None => None,
        }
    }

    /// Puts `item` into the slot that [`Slots::next_id`] named; gives it back when the table is full.
    pub(super) fn insert(&mut self, item: T) -> Result<ConnId, T> {
        let Some(id) = self.next_id() else { return Err(item) };
        if self.free.pop().is_none() {
            self.entries.push(Slot { generation: 0, item: None });
        }
        let slot = &mut self.entries[id.slot as usize];
        assert!(slot.item.is_none(), "a free slot is empty");
        slot.item = Some(item);
        self.used += 1;
        Ok(id)
    }

    /// The connection in `slot`, with its present id.
    pub(super) fn at(&mut self, slot: u32) -> Option<(ConnId, &mut T)> {
        let entry = self.entries.get_mut(slot as usize)?;
        let id = ConnId { slot, generation: entry.generation };
        entry.item.as_mut().map(|item| (id, item))
    }

    /// The connection `id` names, if it is still there.
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        if entry.generation == id.generation { entry.item.as_mut() } else { None }
    }

    /// Takes the connection out of `slot`; its id will not be given again.
    pub(super) fn remove(&mut self, slot: u32) -> Option<(ConnId, T)> {
        let entry = self.entries.get_mut(slot as usize)?;
        let item = entry.item.take()?;
        let id = ConnId { slot, generation: entry.generation };
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.used -= 1;
        Some((id, item))
    }

    /// All connections held.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|s| s.item.as_ref())
    }

    /// Connections held.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Slots ever used: every connection's slot is below it.
    pub(super) fn span(&self) -> u32 {
        self.entries.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_names_a_new_connection() {
        let mut s = Slots::new(2);
        let a = s.insert('a').unwrap();
        let b = s.insert('b').unwrap();
        assert_eq!((s.insert('c'), s.next_id(), s.len()), (Err('c'), None, 2));
        assert_eq!(s.remove(a.slot), Some((a, 'a')));
        assert_eq!(s.remove(a.slot), None);
        let named = s.next_id().unwrap();
        let c = s.insert('c').unwrap();
        assert_eq!((c, c.slot), (named, a.slot));
        let found = [a, b, c].map(|id| s.get_mut(id).copied());
        assert_eq!(found, [None, Some('b'), Some('c')]);
        assert_eq!(s.at(c.slot), Some((c, &mut 'c')));
        assert!(s.at(7).is_none());
        assert_eq!(s.span(), 2);
    }
}
