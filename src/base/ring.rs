//! A bounded FIFO that allocates once. Full is a value, never a reallocation.

use std::collections::VecDeque;

/// A bounded first-in first-out queue.
#[derive(Debug)]
pub struct Ring<T> {
    items: VecDeque<T>,
    cap: usize,
}

impl<T> Ring<T> {
    /// An empty queue of at most `cap` items.
    pub fn new(cap: usize) -> Ring<T> {
        Ring { items: VecDeque::with_capacity(cap), cap }
    }
    /// Appends, or gives the item back when the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == self.cap {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }
    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }
    /// The oldest item, to change in place.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.items.front_mut()
    }
    /// Items held.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// Items that may still be pushed.
    pub fn room(&self) -> usize {
        self.cap - self.items.len()
    }
    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn full_is_a_value() {
        let mut r = Ring::new(2);
        assert_eq!((r.push(1), r.push(2), r.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((r.pop(), r.room(), r.len()), (Some(1), 1, 1));
    }
}
