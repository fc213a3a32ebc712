//! One core of the node: everything it owns, and the order in which one turn of its reactor calls it. Only here do the
//! layers meet; each of them knows the ones below it, and none knows this file.

use super::cores::Task;
use crate::base::{CoreId, Status, Time, VolumeId};
use crate::device::AnyQueue;
use crate::mem::{Pool, Span};
use crate::net::{AnyNet, ListenerId, Net, NetError};
use crate::nvmf::{self, Target};
use crate::reactor::{self, Peer, Turn, Work};
use crate::repl::Local;
use crate::volume::{self, Completion, Front};
use std::net::SocketAddr;
use std::sync::Arc;

/// What cores and the control thread tell each other.
pub enum Message {
    /// Between fronts: parts of requests and their ends.
    Volume(volume::Message),
    /// Between targets: controllers and their queues.
    Target(nvmf::Message),
    /// From the control thread: something to run.
    Task(Task),
}

/// The tag of an administrative operation whose end nobody waits for.
pub const FORGET: u64 = 0;

/// One core.
pub struct Core {
    id: CoreId,
    pool: Pool,
    spans: Arc<[Span]>,
    net: AnyNet,
    target: Target,
    front: Front<Local<AnyQueue>>,
    completions: Vec<Completion>,
    /// Messages of the target that found a mailbox full.
    unsent: Vec<(CoreId, nvmf::Message)>,
    /// Administrative operations on slices that ended, until the control thread asks.
    administered: Vec<(u64, Status)>,
    listening: Vec<(SocketAddr, ListenerId)>,
    closing: bool,
}

/// What a [`Core`] is made of.
pub struct Parts {
    /// Its buffers.
    pub pool: Pool,
    /// The memory of all cores' buffers, for devices to register.
    pub spans: Arc<[Span]>,
    /// Its streams.
    pub net: AnyNet,
    /// Its share of the NVMe/TCP target.
    pub target: Target,
    /// Its volumes.
    pub front: Front<Local<AnyQueue>>,
}

impl Core {
    /// A core that serves nothing yet.
    pub fn new(id: CoreId, parts: Parts) -> Core {
        Core {
            id,
            pool: parts.pool,
            spans: parts.spans,
            net: parts.net,
            target: parts.target,
            front: parts.front,
            completions: Vec::with_capacity(4096),
            unsent: Vec::new(),
            administered: Vec::new(),
            listening: Vec::new(),
            closing: false,
        }
    }

    /// Its number.
    pub fn id(&self) -> CoreId {
        self.id
    }
    /// Where all cores' buffers are.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
    /// Its volumes.
    pub fn front(&mut self) -> &mut Front<Local<AnyQueue>> {
        &mut self.front
    }
    /// Its volumes, to look at.
    pub fn front_ref(&self) -> &Front<Local<AnyQueue>> {
        &self.front
    }
    /// Its volumes and its buffers.
    pub fn front_and_pool(&mut self) -> (&mut Front<Local<AnyQueue>>, &mut Pool) {
        (&mut self.front, &mut self.pool)
    }

    /// The end of administrative operation `tag`, once.
    pub fn take_administered(&mut self, tag: u64) -> Option<Status> {
        let at = self.administered.iter().position(|(t, _)| *t == tag)?;
        Some(self.administered.swap_remove(at).1)
    }

    /// New exports.
    pub fn export(&mut self, snapshot: Arc<nvmf::Snapshot>) {
        self.target.configure(snapshot);
    }

    /// True while no request of this volume is under way on this core.
    pub fn is_quiet(&mut self, volume: VolumeId) -> bool {
        self.target.quiet(volume) && !self.front.is_busy(volume)
    }

    /// Listens on an address that the cores share.
    pub fn listen(&mut self, addr: SocketAddr) -> Result<(), NetError> {
        if self.listening.iter().any(|(a, _)| *a == addr) {
            return Ok(());
        }
        let (id, bound) = self.net.listen(addr, true)?;
        self.target.listen(id, bound);
        self.listening.push((addr, id));
        Ok(())
    }

    /// Stops listening; connections made through the address end.
    pub fn unlisten(&mut self, addr: SocketAddr) {
        if let Some(at) = self.listening.iter().position(|(a, _)| *a == addr) {
            let (_, id) = self.listening.swap_remove(at);
            self.net.unlisten(id);
            self.target.unlisten(id);
        }
    }

    /// Connections open on its net.
    pub fn connections(&self) -> usize {
        self.net.connections()
    }

    /// Counters of its target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its buffers.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Messages of this turn. Returns true when there were any.
    fn mail(&mut self, turn: &mut Turn<'_, Message>) -> bool {
        let mut any = false;
        while let Some((from, message)) = turn.receive() {
            any = true;
            match (from, message) {
                (Peer::Core(from), Message::Volume(m)) => self.front.receive(from, m, &mut self.pool),
                (Peer::Core(from), Message::Target(m)) => {
                    self.target.message(turn.now, from, m, &mut self.net, &mut self.pool);
                }
                (_, Message::Task(task)) => task(self, turn.now),
                (Peer::Control, _) => unreachable!("the control thread sends tasks only"),
            }
        }
        any
    }

    /// Messages to other cores. Returns true when there were any.
    fn post(&mut self, turn: &mut Turn<'_, Message>) -> bool {
        self.unsent.extend(self.target.outbox());
        let mut posted = !self.unsent.is_empty();
        let mut full = false;
        for (to, message) in std::mem::take(&mut self.unsent) {
            if to == self.id {
                self.target.message(turn.now, to, message, &mut self.net, &mut self.pool);
            } else if full {
                self.unsent.push((to, message));
            } else if let Err(Message::Target(back)) = turn.send(to, Message::Target(message)) {
                full = true;
                self.unsent.push((to, back));
            }
        }
        posted |= self.front.post(|to, m| match turn.send(to, Message::Volume(m)) {
            Err(Message::Volume(back)) => Err(back),
            _ => Ok(()),
        });
        posted
    }

    /// Ends what hosts have open; true once nothing is left.
    fn wind_down(&mut self) -> bool {
        if !std::mem::replace(&mut self.closing, true) {
            for (_, id) in std::mem::take(&mut self.listening) {
                self.net.unlisten(id);
                self.target.unlisten(id);
            }
        }
        self.net.connections() == 0 && self.front.is_idle() && self.unsent.is_empty()
    }
}

impl reactor::Core for Core {
    type Message = Message;
    const STAGES: &'static [&'static str] = &["receive", "mail", "media", "respond", "send"];

    fn tick(&mut self, turn: &mut Turn<'_, Message>) -> Work {
        let now = turn.now;
        let mut worked = self.net.poll(now, &mut self.pool, &mut self.target.join(now, &mut self.front)) != 0;
        turn.stage(1);
        worked |= self.mail(turn);
        turn.stage(2);
        worked |= self.front.step(now, &mut self.pool);
        for (_, _, tag, status) in self.front.local().drain_admin() {
            if tag != FORGET {
                self.administered.push((tag, status));
            }
        }
        turn.stage(3);
        self.front.drain(&mut self.completions);
        self.target.respond(now, &mut self.completions, &mut self.net, &mut self.pool);
        worked |= self.target.tick(now, &mut self.net, &mut self.front, &mut self.pool);
        worked |= self.post(turn);
        turn.stage(4);
        worked |= self.net.flush(now, &mut self.pool) != 0;
        if turn.stopping && self.wind_down() {
            return Work::Finished;
        }
        if worked || self.front.is_restless() { Work::Busy } else { Work::Idle }
    }

    fn wait_fds(&self, fds: &mut Vec<i32>) -> bool {
        let Some(net) = self.net.wait_fd() else { return false };
        fds.push(net);
        fds.extend(self.front.media().wait_fds());
        !self.front.media().must_poll()
    }

    fn next_deadline(&self) -> Option<Time> {
        [self.net.wake_at(), self.front.media().wake_at(), self.target.wake_at()].into_iter().flatten().min()
    }
}
