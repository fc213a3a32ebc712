//! One association: its connections, its set-up, its keep-alive, its end and, where asked for, its return.
//!
//! ```text
//! Connecting -> Ready -> (loss) -> Failed
//!     ^                    |
//!     +---- reconnect_ms --+
//! ```

use super::queue::{Link, Problem, Queue};
use super::setup::{Answer, Namespace, Next, Setup, Step};
use super::{Client, Command, Config, Disk, Ended, Error, Failure, State};
use crate::base::Time;
use crate::initiator::links::{Comeback, Links};
use crate::mem::{Buf, Pool};
use crate::net::{Close, Closed, ConnId, Ends, Handler, ListenerId, Net, Tx};
use crate::wire::fabrics::{Property, property};
use crate::wire::nvme::{Sgl, Sqe, admin_op};
use zerocopy::IntoBytes;

/// Between two looks at the timers, ns.
const TIMERS_NS: u64 = 20_000_000;
/// CID of Keep Alive on the admin queue; set-up commands use 0.
const KEEP_ALIVE_CID: u16 = 1;
/// Connections of I/O queues that are being opened at once: a target bounds how many of one address have not sent their
/// Connect, and takes more for an attack.
const OPENING: u16 = 4;

/// An association with one subsystem.
#[derive(Debug)]
pub struct Initiator {
    config: Config,
    state: State,
    /// Admin queue first.
    queues: Vec<Queue>,
    links: Links,
    setup: Setup,
    namespace: Option<Namespace>,
    ended: Vec<Ended>,
    /// Answers to commands of the set-up, and keep-alives.
    answers: Vec<Ended>,
    orphans: Vec<Buf>,
    /// Why the connections must go, found inside the net's poll.
    loss: Option<Error>,
    error: Option<Error>,
    /// A command of the set-up that waits for its time.
    waiting: Option<(Time, Sqe)>,
    started: bool,
    /// I/O queues whose connection was begun.
    opened: u16,
    setup_until: Time,
    comeback: Comeback,
    timers_at: Time,
    keep_alive_at: Time,
    keep_alive_sent: Option<Time>,
    now: Time,
}

impl Initiator {
    /// An association that begins to connect with the first [`Initiator::poll`].
    pub fn new(config: Config) -> Initiator {
        assert!((1..=64).contains(&config.queues), "1 to 64 I/O connections");
        assert!((1..=4096).contains(&config.depth), "1 to 4096 commands per connection");
        let mut queues = vec![Queue::new(0, 2, config.digests)];
        queues.extend((1..=config.queues).map(|qid| Queue::new(qid, config.depth, config.digests)));
        let commands = usize::from(config.queues) * usize::from(config.depth);
        Initiator {
            state: State::Connecting,
            queues,
            links: Links::default(),
            setup: Setup::new(),
            namespace: None,
            ended: Vec::with_capacity(commands),
            answers: Vec::with_capacity(4),
            orphans: Vec::with_capacity(commands),
            loss: None,
            error: None,
            waiting: None,
            started: false,
            opened: 0,
            setup_until: Time(0),
            comeback: Comeback::default(),
            timers_at: Time(0),
            keep_alive_at: Time(u64::MAX),
            keep_alive_sent: None,
            now: Time(0),
            config,
        }
    }

    /// What it is doing, for people who wait.
    pub fn step(&self) -> Step {
        self.setup.step
    }
    /// Why it failed.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
    /// The namespace, once [`State::Ready`] was reached for the first time.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }
    /// Bytes a write may have to travel with its command; larger ones take a round trip more.
    pub fn in_capsule_max(&self) -> u32 {
        self.setup.in_capsule_max
    }
    /// Commands under way on all I/O connections.
    pub fn under_way(&self) -> u32 {
        self.queues[1..].iter().map(Queue::under_way).sum()
    }

    fn turn<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        if !self.started {
            self.started = true;
            self.begin(now, net);
        }
        let mut answers = std::mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            if let Err(e) = self.answered(answer, now, net, pool) {
                self.loss.get_or_insert(e);
            }
        }
        self.answers = answers;
        self.timers(now, net, pool);
        if let Some(loss) = self.loss.take() {
            self.lose(loss, now, net, pool);
        }
        // Between steps of the set-up and waits for the controller, timers are looked at every turn.
        self.timers_at = if self.state == State::Ready { now.after_ns(TIMERS_NS) } else { now };
    }

    /// First connection of an attempt.
    fn begin<N: Net>(&mut self, now: Time, net: &mut N) {
        self.state = State::Connecting;
        self.setup = Setup::new();
        self.waiting = None;
        self.setup_until = now.after_ms(self.config.setup_ms);
        self.opened = 0;
        self.open(0, net);
    }

    /// Opens the connection of the next I/O queue, if there is one.
    fn open_next<N: Net>(&mut self, net: &mut N) {
        if self.opened < self.config.queues {
            self.opened += 1;
            self.open(self.opened, net);
        }
    }

    fn open<N: Net>(&mut self, index: u16, net: &mut N) {
        match net.connect(self.config.addr) {
            Ok(conn) => {
                self.links.put(conn, index);
                self.queues[usize::from(index)].connecting(conn);
            }
            Err(e) => {
                self.loss.get_or_insert(e.into());
            }
        }
    }

    /// An answer to a command of the set-up, or to Keep Alive.
    fn answered<N: Net>(&mut self, answer: Ended, now: Time, net: &mut N, pool: &mut Pool) -> Result<(), Error> {
        let index = usize::from(answer.queue.wrapping_add(1));
        if index == 0 && answer.slot == KEEP_ALIVE_CID {
            self.keep_alive_sent = None;
            let refused = |status| Error::Refused { step: Step::KeepAlive, status };
            return match answer.result {
                Err(Failure::Status(status)) => Err(refused(status)),
                _ => Ok(()),
            };
        }
        if self.state != State::Connecting {
            return Ok(());
        }
        let step = self.setup.step;
        let next = match (&answer.result, index) {
            (Err(Failure::Status(status)), 0) => self.setup.answered(&Answer::Bad(*status), &self.config, now),
            (Err(Failure::Status(status)), _) => Err(Error::Refused { step, status: *status }),
            (Err(_), _) => Err(self.timed_out(step)),
            (Ok(()), 0) => {
                let data = answer.buf.as_deref().unwrap_or(&[]);
                self.setup.answered(&Answer::Good(answer.value, data), &self.config, now)
            }
            (Ok(()), _) => {
                self.open_next(net);
                self.io_connected();
                return Ok(());
            }
        };
        if let Some(buf) = answer.buf {
            pool.put(buf);
        }
        match next? {
            Next::Done => (0..OPENING).for_each(|_| self.open_next(net)),
            Next::SendAt(at, sqe) => self.waiting = Some((at, sqe)),
            next => self.send(0, next, now, net, pool),
        }
        Ok(())
    }

    fn timed_out(&self, step: Step) -> Error {
        Error::TimedOut { addr: self.config.addr, step }
    }

    /// Sends a command of the set-up.
    fn send<N: Net>(&mut self, index: u16, next: Next, now: Time, net: &mut N, pool: &mut Pool) {
        let queue = &mut self.queues[usize::from(index)];
        let Some(tx) = queue.conn.and_then(|conn| net.tx(conn)) else { return };
        match next {
            Next::Send(sqe, 0) | Next::SendAt(_, sqe) => queue.send(sqe, false, 0, None, now, tx),
            Next::Send(sqe, bytes) => {
                let buf = pool.get(bytes as usize).expect("the pool has room for one Identify structure");
                queue.send(sqe, true, bytes, Some(buf), now, tx);
            }
            Next::Connect(sqe, data) => queue.send_small(sqe, data.as_bytes(), now, tx),
            Next::Done => {}
        }
    }

    /// One more I/O queue is connected; the last one makes the association ready.
    fn io_connected(&mut self) {
        let all = self.queues[1..].iter().all(|q| q.link == Link::Open && q.connect_sent && q.under_way() == 0);
        if !all {
            return;
        }
        let found = self.setup.namespace.clone();
        if self.namespace.is_some() && self.namespace != found {
            self.loss = Some(Error::Changed);
            self.comeback.settle();
            self.config.reconnect_ms = 0;
            return;
        }
        self.namespace = found;
        let limit = u32::from(self.setup.io_sqsize(self.config.depth));
        for queue in &mut self.queues[1..] {
            queue.in_capsule_max = self.setup.in_capsule_max;
            queue.limit = limit.min(u32::from(self.config.depth));
        }
        self.state = State::Ready;
        self.setup.step = Step::Running;
        self.comeback.settle();
        self.keep_alive_sent = None;
        let half = u64::from(self.config.kato_ms) / 2;
        self.keep_alive_at = if half == 0 { Time(u64::MAX) } else { self.now.after_ms(half) };
    }

    fn timers<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        if self.comeback.is_due(now) && self.queues[0].link == Link::Closed && self.loss.is_none() {
            self.begin(now, net);
        }
        match self.state {
            State::Connecting => self.setup_timers(now, net, pool),
            State::Ready => self.ready_timers(now, net),
            State::Failed => {}
        }
    }

    fn setup_timers<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        if self.queues[0].link == Link::Closed {
            return;
        }
        if now >= self.setup_until {
            self.loss.get_or_insert(Error::TimedOut { addr: self.config.addr, step: self.setup.step });
            return;
        }
        // A queue whose handshake just ended gets its Connect.
        for index in 0..=self.config.queues {
            let queue = &self.queues[usize::from(index)];
            let fresh = queue.link == Link::Open && !queue.connect_sent;
            if fresh {
                let next =
                    if index == 0 { self.setup.begin(&self.config) } else { self.setup.connect(&self.config, index) };
                self.queues[usize::from(index)].connect_sent = true;
                self.send(index, next, now, net, pool);
            }
        }
        if let Some((at, sqe)) = self.waiting
            && now >= at
        {
            self.waiting = None;
            self.send(0, Next::SendAt(at, sqe), now, net, pool);
        }
    }

    fn ready_timers<N: Net>(&mut self, now: Time, net: &mut N) {
        let deadline = Time(now.0.saturating_sub(self.config.command_ms.saturating_mul(1_000_000)));
        if self.queues[1..].iter().any(|q| q.overdue(deadline).is_some()) {
            self.loss.get_or_insert(self.timed_out(Step::Running));
        }
        let patience = u64::from(self.config.kato_ms) * 1_000_000;
        if self.keep_alive_sent.is_some_and(|sent| now.since(sent) > patience) {
            self.loss.get_or_insert(self.timed_out(Step::KeepAlive));
        }
        if now >= self.keep_alive_at && self.keep_alive_sent.is_none() {
            self.keep_alive_at = now.after_ms(u64::from(self.config.kato_ms) / 2);
            let admin = &mut self.queues[0];
            if let Some(tx) = admin.conn.and_then(|conn| net.tx(conn)) {
                self.keep_alive_sent = Some(now);
                let sqe = Sqe::new(admin_op::KEEP_ALIVE, KEEP_ALIVE_CID, 0, Sgl::NONE);
                admin.send(sqe, false, 0, None, now, tx);
            }
        }
    }

    /// The association is lost: everything under way ends, and it is made again or is over.
    fn lose<N: Net>(&mut self, loss: Error, now: Time, net: &mut N, pool: &mut Pool) {
        let deadline = match &loss {
            Error::TimedOut { step: Step::Running, .. } => {
                Some(Time(now.0.saturating_sub(self.config.command_ms.saturating_mul(1_000_000))))
            }
            _ => None,
        };
        let how = if matches!(loss, Error::Protocol { .. }) { Close::AfterSend } else { Close::Now };
        self.drop_connections(how, deadline, net, pool);
        let was_ready = self.namespace.is_some();
        if was_ready && self.comeback.lost(now, self.config.reconnect_ms) {
            self.state = State::Connecting;
        } else {
            self.comeback.settle();
            self.state = State::Failed;
            self.error = Some(loss);
        }
    }

    fn drop_connections<N: Net>(&mut self, how: Close, deadline: Option<Time>, net: &mut N, pool: &mut Pool) {
        for queue in &mut self.queues {
            if let Some(conn) = queue.conn {
                net.close(conn, how);
            }
            let overdue = deadline.and_then(|at| queue.overdue(at));
            let admin = queue.qid == 0 || self.state != State::Ready;
            let out = if admin { &mut self.answers } else { &mut self.ended };
            queue.lost(overdue, out, &mut self.orphans);
        }
        // What the set-up was waiting for has no meaning any more.
        self.answers.clear();
        self.links.clear();
        self.waiting = None;
        for buf in self.orphans.drain(..) {
            pool.put(buf);
        }
    }

    fn broken(&mut self, index: usize, problem: Problem, tx: &mut Tx) {
        let step = self.setup.step;
        let queue = &mut self.queues[index];
        // Nothing that follows on this stream can be understood.
        queue.link = Link::Closed;
        let error = match problem {
            Problem::Terminated { fes, fei } => Error::Terminated { step, fes, fei },
            Problem::Broken(fault) => {
                Queue::terminate(fault, tx);
                Error::Protocol { step, fault }
            }
        };
        self.loss.get_or_insert(error);
    }

    fn sink(&mut self, index: usize) -> (&mut Queue, &mut Vec<Ended>) {
        let to_caller = index != 0 && self.state == State::Ready;
        (&mut self.queues[index], if to_caller { &mut self.ended } else { &mut self.answers })
    }
}

impl Client for Initiator {
    fn state(&self) -> State {
        self.state
    }

    fn why(&self) -> Option<String> {
        self.error.as_ref().map(ToString::to_string)
    }

    fn disk(&self) -> Option<Disk> {
        let ns = self.namespace.as_ref()?;
        let named = || format!("{}?nsid={}", self.config.subnqn, ns.nsid).into_bytes();
        let identity = ns.id.map_or_else(named, |id| id.to_vec());
        Some(Disk { block_size: ns.block_size, blocks: ns.blocks, io_bytes_max: ns.io_bytes_max, identity })
    }

    fn ended(&mut self) -> &mut Vec<Ended> {
        &mut self.ended
    }

    #[inline]
    fn submit<N: Net>(
        &mut self,
        command: &Command,
        payload: Option<Buf>,
        net: &mut N,
        pool: &mut Pool,
    ) -> Result<(), Option<Buf>> {
        let queue = &mut self.queues[usize::from(command.queue) + 1];
        if self.state != State::Ready || !queue.has_room() {
            return Err(payload);
        }
        let (Some(ns), Some(tx)) = (&self.namespace, queue.conn.and_then(|conn| net.tx(conn))) else {
            return Err(payload);
        };
        queue.submit(command, (ns.nsid, ns.block_size), payload, self.now, (tx, pool))
    }

    fn poll<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        self.now = now;
        net.poll(now, pool, self);
        if !self.answers.is_empty() || self.loss.is_some() || now >= self.timers_at {
            self.turn(now, net, pool);
        }
    }

    fn kick<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        net.flush(now, pool);
    }

    fn disconnect<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        if self.state == State::Ready
            && let Some(tx) = self.queues[0].conn.and_then(|conn| net.tx(conn))
            && self.queues[0].has_room()
        {
            let cc = u64::from(property::CC_ENABLE_NVM | property::CC_SHN_NORMAL);
            self.queues[0].send(Property::set(0, property::CC, false, cc), false, 0, None, now, tx);
        }
        net.flush(now, pool);
        self.drop_connections(Close::AfterSend, None, net, pool);
        self.state = State::Failed;
    }
}

impl Handler for Initiator {
    fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        false
    }

    fn connected(&mut self, conn: ConnId, tx: &mut Tx) {
        if let Some(index) = self.links.index_of(conn) {
            if index == 0 {
                self.setup.step = Step::Handshake;
            }
            self.queues[index].handshake(tx);
        }
    }

    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let index = self.links.index_of(conn)?;
        self.queues[index].landing()
    }

    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        let Some(index) = self.links.index_of(conn) else { return };
        let (queue, out) = self.sink(index);
        if let Err(problem) = queue.landed(n, pool, out) {
            self.broken(index, problem, tx);
        }
    }

    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let Some(index) = self.links.index_of(conn).filter(|i| self.queues[*i].link != Link::Closed) else {
            return bytes.len();
        };
        let (queue, out) = self.sink(index);
        match queue.data(bytes, tx, pool, out) {
            Ok(consumed) => consumed,
            Err(problem) => {
                self.broken(index, problem, tx);
                bytes.len()
            }
        }
    }

    fn closed(&mut self, conn: ConnId, why: Closed) {
        if self.links.index_of(conn).is_some() {
            let (addr, step) = (self.config.addr, self.setup.step);
            self.loss.get_or_insert(Error::Closed { addr, step, why });
        }
    }
}
