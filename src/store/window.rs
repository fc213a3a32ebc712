//! A window on the medium: a run of blocks read into a pool buffer. Recovery, cleaning and scrub look at the log through
//! windows; on memory-speed devices a window is there at once.

use super::device_ops::Port;
use super::format::Addr;
use super::token::Purpose;
use crate::base::BLOCK;
use crate::device::{DeviceError, Done, Queue};
use crate::mem::{Buf, Pool};

/// Where a window is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// Shows nothing.
    Empty,
    /// Being read.
    Flying,
    /// Shows its blocks.
    Here,
    /// Could not be read.
    Failed(DeviceError),
}

/// A run of blocks and their content.
pub(super) struct Window {
    view: View,
    first: Addr,
    blocks: u32,
    buf: Option<Buf>,
}

impl Window {
    pub fn new() -> Window {
        Window { view: View::Empty, first: Addr::NONE, blocks: 0, buf: None }
    }
    pub fn view(&self) -> View {
        self.view
    }
    /// True when the window shows this block, or tried to.
    pub fn covers(&self, addr: Addr) -> bool {
        self.view != View::Empty && addr >= self.first && addr.0 < self.first.0 + self.blocks
    }
    /// First block and number of blocks that it shows or showed last.
    pub fn range(&self) -> (Addr, u32) {
        (self.first, self.blocks)
    }
    /// A block that the window shows.
    pub fn block(&self, addr: Addr) -> &[u8] {
        assert!(self.view == View::Here && self.covers(addr), "only what is here can be seen");
        let at = (addr.0 - self.first.0) as usize * BLOCK;
        &self.buf.as_ref().expect("a window that is here has its buffer")[at..at + BLOCK]
    }

    /// Starts to read `blocks` blocks from `addr` on; false when no buffer is free. The window must not be flying.
    pub fn read<Q: Queue>(
        &mut self,
        addr: Addr,
        blocks: u32,
        purpose: Purpose,
        port: &mut Port,
        q: &mut Q,
        pool: &mut Pool,
    ) -> bool {
        assert_ne!(self.view, View::Flying, "one read at a time");
        let len = blocks as usize * BLOCK;
        let mut buf = match self.buf.take() {
            Some(buf) if buf.capacity() >= len => buf,
            other => {
                if let Some(small) = other {
                    pool.put(small);
                }
                self.view = View::Empty;
                let Some(buf) = pool.get(len) else { return false };
                buf
            }
        };
        buf.set_len(len);
        (self.first, self.blocks) = (addr, blocks);
        match q.read_now(port.byte(addr.0), &mut buf) {
            Some(result) => {
                port.memory = true;
                self.buf = Some(buf);
                self.view = result.map_or_else(View::Failed, |()| View::Here);
            }
            None => {
                self.view = View::Flying;
                port.read(addr.0, len, buf, 0, purpose, q);
            }
        }
        true
    }

    /// The read has ended.
    pub fn done(&mut self, done: Done) {
        assert_eq!(self.view, View::Flying, "only a window being read completes");
        self.buf = done.buf;
        self.view = done.result.map_or_else(View::Failed, |()| View::Here);
    }

    /// Shows nothing any more, so that the next look reads anew; the window must not be flying.
    pub fn forget(&mut self) {
        assert_ne!(self.view, View::Flying, "a read can not be called back");
        self.view = View::Empty;
    }

    /// Shows nothing any more and gives the buffer back (unless it is at the device).
    pub fn release(&mut self, pool: &mut Pool) {
        if self.view != View::Flying {
            self.view = View::Empty;
            if let Some(buf) = self.buf.take() {
                pool.put(buf);
            }
        }
    }
}
