//! A directory page: what is known of 512 consecutive chunks of a volume. In memory it names the leaves; on the
//! medium it names the leaves' pages, of the newest durable checkpoint and of the one being written.

use super::NIL;
use crate::store::format::Addr;
use crate::store::format::page::{ENTRIES, Entry};

/// Where a checkpoint page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct PageState {
    /// In the newest durable checkpoint; [`Entry::NONE`] when it has none.
    pub durable: Entry,
    /// In the checkpoint being written; [`Entry::NONE`] when that leaves it as it was, [`PageState::ABSENT`] when
    /// it has no such page any more.
    pub next: Entry,
}

impl PageState {
    /// The checkpoint being written has no such page.
    pub const ABSENT: Entry = Entry { addr: Addr::LOST, crc: 1 };
    const EMPTY: PageState = PageState { durable: Entry::NONE, next: Entry::NONE };

    /// The page as the checkpoint being written has it.
    pub fn newest(&self) -> Entry {
        match self.next {
            Entry::NONE => self.durable,
            PageState::ABSENT => Entry::NONE,
            page => page,
        }
    }

    /// The checkpoint being written is durable: its page replaces the old one, which is returned if it was a place.
    pub fn commit(&mut self) -> Option<Addr> {
        if self.next == Entry::NONE {
            return None;
        }
        let old = self.durable.addr;
        *self = PageState { durable: self.newest(), next: Entry::NONE };
        old.is_place().then_some(old)
    }
}

/// 512 chunks.
pub(in crate::store) struct Dir {
    /// The leaf of each chunk in the leaf slab.
    pub leaf: [u32; ENTRIES],
    /// Mapped blocks of each chunk.
    pub mapped: [u16; ENTRIES],
    dirty: [u64; ENTRIES / 64],
    /// The leaf page of each chunk.
    pub pages: [PageState; ENTRIES],
    /// This directory page's own page.
    pub own: PageState,
    /// A leaf went away: the next checkpoint must look for pages without leaves.
    pub lost_leaf: bool,
    /// The next checkpoint must write this directory page anew.
    pub rewrite: bool,
}

impl Dir {
    pub(super) const EMPTY: Dir = Dir {
        leaf: [NIL; ENTRIES],
        mapped: [0; ENTRIES],
        dirty: [0; ENTRIES / 64],
        pages: [PageState::EMPTY; ENTRIES],
        own: PageState::EMPTY,
        lost_leaf: false,
        rewrite: false,
    };

    /// True when the leaf differs from its newest page.
    pub fn is_dirty(&self, at: usize) -> bool {
        self.dirty[at / 64] & 1 << (at % 64) != 0
    }
    /// Marks it; true when it was not.
    #[inline]
    pub fn mark_dirty(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.dirty[at / 64], 1u64 << (at % 64));
        let newly = *word & bit == 0;
        *word |= bit;
        newly
    }
    /// Unmarks it; true when it was.
    pub fn clear_dirty(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.dirty[at / 64], 1u64 << (at % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }
    /// True when any leaf is marked.
    pub fn any_dirty(&self) -> bool {
        self.dirty.iter().any(|w| *w != 0)
    }
    /// True when nothing of it is left, in memory or on the medium.
    pub fn is_empty(&self) -> bool {
        let no_page = |p: &PageState| *p == PageState::EMPTY;
        self.leaf.iter().all(|n| *n == NIL) && self.pages.iter().all(no_page) && no_page(&self.own)
    }
}
