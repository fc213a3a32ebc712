//! One core of the node: everything it owns, and the order in which one turn of its reactor calls it. Only here do the
//! layers meet; each of them knows the ones below it, and none knows this file.

use super::cores::Task;
use super::doors::{Doors, Routes};
use crate::base::{CoreId, Status, Time, VolumeId};
use crate::cluster::Protocol;
use crate::device::AnyQueue;
use crate::iscsi;
use crate::mem::{Pool, Span};
use crate::net::{AnyNet, ListenerId, Net, NetError};
use crate::nvmf;
use crate::reactor::{self, Peer, Turn, Work};
use crate::repl::Local;
use crate::volume::reserve::{Refused, Told};
use crate::volume::{self, Completion, Front};
use std::net::SocketAddr;
use std::sync::Arc;

/// What cores and the control thread tell each other.
pub enum Message {
    /// Between fronts: parts of requests and their ends.
    Volume(volume::Message),
    /// Between NVMe/TCP targets: controllers and their queues.
    Nvmf(nvmf::Message),
    /// Between iSCSI targets: sessions and resets.
    Iscsi(iscsi::Message),
    /// From the control thread: something to run.
    Task(Task),
    /// To the control thread: a change of a volume's reservations. The answer is a task that calls [`Core::reserved`].
    Reserve(iscsi::Order),
}

/// What a core's targets export.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// Over NVMe/TCP.
    pub nvmf: Arc<nvmf::Snapshot>,
    /// Over iSCSI.
    pub iscsi: Arc<iscsi::Snapshot>,
}

/// Bits 63:56 of the tags of the NVMe/TCP target's requests; those of the iSCSI target have another number there.
const NVMF_TAG: u64 = 0;

/// The tag of an administrative operation whose end nobody waits for.
pub const FORGET: u64 = 0;

/// One core.
pub struct Core {
    id: CoreId,
    pool: Pool,
    spans: Arc<[Span]>,
    net: AnyNet,
    routes: Routes,
    nvmf: nvmf::Target,
    iscsi: iscsi::Target,
    front: Front<Local<AnyQueue>>,
    completions: Vec<Completion>,
    /// Those of the iSCSI target.
    iscsi_completions: Vec<Completion>,
    /// Messages of the targets that found a mailbox full.
    unsent: Vec<(CoreId, Message)>,
    /// Changes of reservations that found the control thread's mailbox full.
    unasked: Vec<Message>,
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
    pub nvmf: nvmf::Target,
    /// Its share of the iSCSI target.
    pub iscsi: iscsi::Target,
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
            routes: Routes::default(),
            nvmf: parts.nvmf,
            iscsi: parts.iscsi,
            front: parts.front,
            completions: Vec::with_capacity(4096),
            iscsi_completions: Vec::with_capacity(4096),
            unsent: Vec::new(),
            unasked: Vec::new(),
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
    pub fn export(&mut self, exports: &Exports) {
        self.nvmf.configure(exports.nvmf.clone());
        self.iscsi.configure(exports.iscsi.clone());
    }

    /// True once no request of a host that has lost its right to it is under way.
    pub fn settled(&self) -> bool {
        self.nvmf.settled() && self.iscsi.settled()
    }

    /// True while no request of this volume is under way on this core.
    pub fn is_quiet(&mut self, volume: VolumeId) -> bool {
        self.nvmf.quiet(volume) && self.iscsi.quiet(volume) && !self.front.is_busy(volume)
    }

    /// Listens on an address that the cores share.
    pub fn listen(&mut self, addr: SocketAddr, protocol: Protocol) -> Result<(), NetError> {
        if self.is_listening(addr) {
            return Ok(());
        }
        let (id, bound) = self.net.listen(addr, true)?;
        self.routes.listen(id, protocol);
        match protocol {
            Protocol::Nvme => self.nvmf.listen(id, bound),
            Protocol::Iscsi => self.iscsi.listen(id, bound),
        }
        self.listening.push((addr, id));
        Ok(())
    }

    /// True while it listens on this address.
    pub fn is_listening(&self, addr: SocketAddr) -> bool {
        self.listening.iter().any(|(a, _)| *a == addr)
    }

    /// Stops listening; connections made through the address end.
    pub fn unlisten(&mut self, addr: SocketAddr) {
        if let Some(at) = self.listening.iter().position(|(a, _)| *a == addr) {
            let (_, id) = self.listening.swap_remove(at);
            self.close_listener(id);
        }
    }

    fn close_listener(&mut self, id: ListenerId) {
        self.net.unlisten(id);
        self.routes.unlisten(id);
        self.nvmf.unlisten(id);
        self.iscsi.unlisten(id);
    }

    /// Its streams, to look at.
    pub fn net(&self) -> &AnyNet {
        &self.net
    }

    /// Connections open on its net.
    pub fn connections(&self) -> usize {
        self.net.connections()
    }

    /// Its NVMe/TCP target, to look at.
    pub fn nvmf(&self) -> &nvmf::Target {
        &self.nvmf
    }

    /// Its iSCSI target, to look at.
    pub fn iscsi(&self) -> &iscsi::Target {
        &self.iscsi
    }

    /// Asks the initiators of a target node to log out, those of one portal group only where it is named.
    pub fn request_logout(&mut self, now: Time, target: u32, portal_group: Option<u16>) {
        self.iscsi.request_logout(now, target, portal_group, &mut self.net);
    }

    /// Starts or stops counting the commands of a target node by latency.
    pub fn set_histogram(&mut self, target: u32, on: bool) {
        self.iscsi.set_histogram(target, on);
    }

    /// Others changed the reservations of a volume; every core has the new value.
    pub fn told(&mut self, volume: VolumeId, told: &[Told]) {
        self.iscsi.told(volume, told);
    }

    /// What became of a change of reservations that this core ordered; every core has the new value.
    pub fn reserved(&mut self, now: Time, token: u64, result: Result<(), Refused>) {
        self.iscsi.reserved(now, token, result, &mut self.net, &mut self.front, &mut self.pool);
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
                (Peer::Core(from), Message::Nvmf(m)) => {
                    self.nvmf.message(turn.now, from, m, &mut self.net, &mut self.pool);
                }
                (Peer::Core(from), Message::Iscsi(m)) => {
                    let (net, pool) = (&mut self.net, &mut self.pool);
                    if let Some(conn) = self.iscsi.message(turn.now, from, m, net, &mut self.front, pool) {
                        self.routes.adopt(conn, Protocol::Iscsi);
                    }
                }
                (_, Message::Task(task)) => task(self, turn.now),
                (Peer::Control, _) => unreachable!("the control thread sends tasks only"),
                (Peer::Core(_), Message::Reserve(_)) => unreachable!("reservations are the control thread's"),
            }
        }
        any
    }

    /// Messages to other cores. Returns true when there were any.
    fn post(&mut self, turn: &mut Turn<'_, Message>) -> bool {
        self.unsent.extend(self.nvmf.outbox().map(|(to, m)| (to, Message::Nvmf(m))));
        self.unsent.extend(self.iscsi.outbox().map(|(to, m)| (to, Message::Iscsi(m))));
        let mut posted = !self.unsent.is_empty();
        let mut full = false;
        for (to, message) in std::mem::take(&mut self.unsent) {
            match message {
                Message::Nvmf(m) if to == self.id => {
                    self.nvmf.message(turn.now, to, m, &mut self.net, &mut self.pool);
                }
                message if full => self.unsent.push((to, message)),
                message => {
                    if let Err(back) = turn.send(to, message) {
                        full = true;
                        self.unsent.push((to, back));
                    }
                }
            }
        }
        self.unasked.extend(self.iscsi.to_control().map(Message::Reserve));
        for message in std::mem::take(&mut self.unasked) {
            posted = true;
            if let Err(back) = turn.send_control(message) {
                self.unasked.push(back);
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
                self.close_listener(id);
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
        let mut doors = Doors {
            now,
            routes: &mut self.routes,
            nvmf: &mut self.nvmf,
            iscsi: &mut self.iscsi,
            volumes: &mut self.front,
        };
        let mut worked = self.net.poll(now, &mut self.pool, &mut doors) != 0;
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
        let iscsi = self.completions.extract_if(.., |c| c.tag >> 56 != NVMF_TAG);
        self.iscsi_completions.extend(iscsi);
        self.nvmf.respond(now, &mut self.completions, &mut self.net, &mut self.pool);
        let done = &mut self.iscsi_completions;
        self.iscsi.respond(now, done, &mut self.net, &mut self.front, &mut self.pool);
        worked |= self.nvmf.tick(now, &mut self.net, &mut self.front, &mut self.pool);
        worked |= self.iscsi.tick(now, &mut self.net, &mut self.front, &mut self.pool);
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
        let targets = [self.nvmf.wake_at(), self.iscsi.wake_at()];
        let below = [self.net.wake_at(), self.front.media().wake_at()];
        targets.into_iter().chain(below).flatten().min()
    }
}
