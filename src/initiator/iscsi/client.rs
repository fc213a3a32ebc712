//! The sessions of one client: their set-up, their pings, their end and, where asked for, their return.
//!
//! ```text
//! Connecting -> Ready -> (loss) -> Failed
//!     ^                    |
//!     +---- reconnect_ms --+
//! ```
//! The first session logs in and looks at the unit; the others follow once it has.

use super::scan::Scan;
use super::session::{Found, Link, Problem, Session, Sinks};
use super::{Config, Error, Step};
use crate::base::Time;
use crate::initiator::links::{Comeback, Links};
use crate::initiator::{Client, Command, Disk, Ended, State};
use crate::mem::{Buf, Pool};
use crate::net::{Close, Closed, ConnId, Ends, Handler, ListenerId, Net, Tx};
use crate::wire::iscsi::{DATA_LIMIT, NO_TAG};

/// Between two looks at the timers, ns.
const TIMERS_NS: u64 = 20_000_000;

/// Sessions with one target, or a discovery session.
#[derive(Debug)]
pub struct Initiator {
    config: Config,
    state: State,
    sessions: Vec<Session>,
    /// By session.
    scans: Vec<Scan>,
    links: Links,
    disk: Option<Disk>,
    ended: Vec<Ended>,
    /// Answers to commands of the scans.
    answers: Vec<Ended>,
    orphans: Vec<Buf>,
    /// Why the connections must go, found inside the net's poll.
    loss: Option<Error>,
    error: Option<Error>,
    started: bool,
    setup_until: Time,
    comeback: Comeback,
    timers_at: Time,
    now: Time,
}

impl Initiator {
    /// A client that begins to connect with the first [`Client::poll`].
    pub fn new(config: Config) -> Initiator {
        assert!((1..=64).contains(&config.sessions), "1 to 64 sessions");
        assert!((1..=4096).contains(&config.depth), "1 to 4096 commands per session");
        assert!((512..=DATA_LIMIT).contains(&config.max_data), "segments of 512 bytes to 16 MiB - 1");
        assert!(config.first_burst <= config.max_burst, "the first burst is no larger than others");
        let commands = usize::from(config.sessions) * usize::from(config.depth);
        Initiator {
            state: State::Connecting,
            sessions: (0..config.sessions).map(|index| Session::new(index, &config)).collect(),
            scans: Vec::new(),
            links: Links::default(),
            disk: None,
            ended: Vec::with_capacity(commands),
            answers: Vec::with_capacity(usize::from(config.sessions)),
            orphans: Vec::with_capacity(commands),
            loss: None,
            error: None,
            started: false,
            setup_until: Time(0),
            comeback: Comeback::default(),
            timers_at: Time(0),
            now: Time(0),
            config,
        }
    }

    /// Why it failed.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
    /// What a discovery session found, once ready.
    pub fn found(&self) -> Option<&[Found]> {
        self.sessions[0].found.as_deref()
    }
    /// Commands under way on all sessions.
    pub fn under_way(&self) -> u32 {
        self.sessions.iter().map(Session::under_way).sum()
    }

    /// What the session is doing.
    fn step(&self, index: usize) -> Step {
        match self.sessions[index].link {
            _ if self.state == State::Ready => Step::Running,
            Link::Closed | Link::Connecting => Step::Connecting,
            Link::Login => Step::Login,
            Link::Open if self.config.target.is_none() => Step::SendTargets,
            Link::Open => self.scans[index].step,
        }
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
        if self.loss.is_none() {
            match self.state {
                State::Connecting => self.setup(now, net, pool),
                State::Ready => self.watch(now, net),
                State::Failed => {}
            }
        }
        if let Some(loss) = self.loss.take() {
            self.lose(loss, now, net, pool);
        }
        self.timers_at = if self.state == State::Ready { now.after_ns(TIMERS_NS) } else { now };
    }

    /// First connection of an attempt.
    fn begin<N: Net>(&mut self, now: Time, net: &mut N) {
        self.state = State::Connecting;
        self.setup_until = now.after_ms(self.config.setup_ms);
        let target = self.config.target.as_deref().unwrap_or("");
        self.scans = (0..self.config.sessions).map(|i| Scan::new(i == 0, self.config.lun, target)).collect();
        self.open(0, net);
    }

    fn open<N: Net>(&mut self, index: u16, net: &mut N) {
        match net.connect(self.config.addr) {
            Ok(conn) => {
                self.links.put(conn, index);
                self.sessions[usize::from(index)].connecting(conn);
            }
            Err(e) => {
                self.loss.get_or_insert(e.into());
            }
        }
    }

    /// Brings the set-up forward: begins the scan of sessions that have just logged in, and looks at the clock.
    fn setup<N: Net>(&mut self, now: Time, net: &mut N, pool: &mut Pool) {
        if self.sessions[0].link == Link::Closed {
            if self.comeback.is_due(now) {
                self.begin(now, net);
            }
            return;
        }
        if now >= self.setup_until {
            let waits = self.sessions.iter().position(|s| s.link != Link::Closed && !s.usable).unwrap_or(0);
            self.loss = Some(Error::TimedOut { addr: self.config.addr, step: self.step(waits) });
            return;
        }
        if self.config.target.is_none() {
            self.discover(net);
            return;
        }
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            if session.link == Link::Open
                && !session.usable
                && session.under_way() == 0
                && session.has_room()
                && let Some(tx) = session.conn.and_then(|conn| net.tx(conn))
            {
                session.ask(&self.scans[index].ask(), now, (tx, pool));
            }
        }
    }

    fn discover<N: Net>(&mut self, net: &mut N) {
        let session = &mut self.sessions[0];
        if session.found.is_some() {
            self.state = State::Ready;
            self.comeback.settle();
        } else if session.link == Link::Open
            && !session.usable
            && let Some(tx) = session.conn.and_then(|conn| net.tx(conn))
        {
            session.usable = true;
            session.send_targets(NO_TAG, tx);
        }
    }

    /// An answer to a command of a scan.
    fn answered<N: Net>(&mut self, answer: Ended, now: Time, net: &mut N, pool: &mut Pool) -> Result<(), Error> {
        if self.state != State::Connecting {
            return Ok(());
        }
        let index = usize::from(answer.queue);
        let usable = match answer.result {
            Ok(()) => self.scans[index].answered(Ok(answer.buf.as_deref().unwrap_or(&[]))),
            Err(failure) => self.scans[index].answered(Err(failure)),
        };
        if let Some(buf) = answer.buf {
            pool.put(buf);
        }
        if !usable? {
            return Ok(());
        }
        self.sessions[index].usable = true;
        if index == 0 {
            let disk = self.scans[0].disk();
            if self.disk.as_ref().is_some_and(|known| *known != disk) {
                self.comeback.settle();
                self.config.reconnect_ms = 0;
                return Err(Error::Changed);
            }
            self.disk = Some(disk);
            for index in 1..self.config.sessions {
                self.open(index, net);
            }
        }
        if self.sessions.iter().all(|s| s.usable) {
            self.state = State::Ready;
            self.comeback.settle();
            for session in &mut self.sessions {
                session.heard = now;
            }
        }
        Ok(())
    }

    /// Looks for commands and pings without an answer; pings sessions that are quiet.
    fn watch<N: Net>(&mut self, now: Time, net: &mut N) {
        let deadline = self.deadline(now);
        if self.sessions.iter().any(|s| s.overdue(deadline).is_some()) {
            self.loss = Some(Error::TimedOut { addr: self.config.addr, step: Step::Running });
            return;
        }
        let patience = self.config.nop_ms.saturating_mul(1_000_000);
        if patience == 0 {
            return;
        }
        for session in &mut self.sessions {
            if session.pinged.is_some_and(|sent| now.since(sent) > patience) {
                self.loss = Some(Error::TimedOut { addr: self.config.addr, step: Step::Running });
                return;
            }
            if session.pinged.is_none()
                && now.since(session.heard) > patience
                && let Some(tx) = session.conn.and_then(|conn| net.tx(conn))
            {
                session.ping(now, tx);
            }
        }
    }

    fn deadline(&self, now: Time) -> Time {
        Time(now.0.saturating_sub(self.config.command_ms.saturating_mul(1_000_000)))
    }

    /// The sessions are lost: everything under way ends, and they are made again or it is over.
    fn lose<N: Net>(&mut self, loss: Error, now: Time, net: &mut N, pool: &mut Pool) {
        let running = matches!(&loss, Error::TimedOut { step: Step::Running, .. });
        let deadline = running.then(|| self.deadline(now));
        self.drop_connections(Close::Now, deadline, net, pool);
        if self.disk.is_some() && self.comeback.lost(now, self.config.reconnect_ms) {
            self.state = State::Connecting;
        } else {
            self.comeback.settle();
            self.state = State::Failed;
            self.error = Some(loss);
        }
    }

    fn drop_connections<N: Net>(&mut self, how: Close, deadline: Option<Time>, net: &mut N, pool: &mut Pool) {
        for session in &mut self.sessions {
            if let Some(conn) = session.conn {
                net.close(conn, how);
            }
            let overdue = deadline.and_then(|at| session.overdue(at));
            let out = if self.state == State::Ready { &mut self.ended } else { &mut self.answers };
            session.lost(overdue, out, &mut self.orphans);
        }
        // What the scans were waiting for has no meaning any more.
        pool.put_all(self.answers.drain(..).filter_map(|answer| answer.buf));
        self.links.clear();
        pool.put_all(self.orphans.drain(..));
    }

    fn broken(&mut self, index: usize, problem: Problem) {
        let step = self.step(index);
        // Nothing that follows on this stream can be understood.
        self.sessions[index].link = Link::Closed;
        let error = match problem {
            Problem::Broken(what) => Error::Protocol { step, what },
            Problem::Rejected(reason) => Error::Rejected { step, reason },
            Problem::Leaving(event) => Error::Leaving(event),
            Problem::Login(error) => Error::Login(error),
        };
        self.loss.get_or_insert(error);
    }

    fn sinks(&mut self, index: usize) -> (&mut Session, Sinks<'_>) {
        let out = if self.state == State::Ready { &mut self.ended } else { &mut self.answers };
        (&mut self.sessions[index], Sinks { config: &self.config, now: self.now, out })
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
        self.disk.clone()
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
        let session = &mut self.sessions[usize::from(command.queue)];
        let Some(disk) = self.disk.as_ref().filter(|_| self.state == State::Ready && session.has_room()) else {
            return Err(payload);
        };
        let Some(tx) = session.conn.and_then(|conn| net.tx(conn)) else { return Err(payload) };
        session.submit(command, disk.block_size, payload, self.now, (tx, pool))
    }

    #[inline]
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
        for session in self.sessions.iter_mut().filter(|s| s.link == Link::Open) {
            if let Some(tx) = session.conn.and_then(|conn| net.tx(conn)) {
                session.logout(tx);
            }
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
        let Some(index) = self.links.index_of(conn) else { return };
        if let Err(problem) = self.sessions[index].begin(&self.config, tx) {
            self.broken(index, problem);
        }
    }

    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let index = self.links.index_of(conn)?;
        self.sessions[index].landing()
    }

    fn landed(&mut self, conn: ConnId, n: usize, _: &mut Tx, pool: &mut Pool) {
        let Some(index) = self.links.index_of(conn) else { return };
        let (session, to) = self.sinks(index);
        if let Err(problem) = session.landed(n, to.now, pool, to.out) {
            self.broken(index, problem);
        }
    }

    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let Some(index) = self.links.index_of(conn).filter(|i| self.sessions[*i].link != Link::Closed) else {
            return bytes.len();
        };
        let (session, mut to) = self.sinks(index);
        match session.data(bytes, tx, pool, &mut to) {
            Ok(consumed) => consumed,
            Err(problem) => {
                self.broken(index, problem);
                bytes.len()
            }
        }
    }

    fn closed(&mut self, conn: ConnId, why: Closed) {
        if let Some(index) = self.links.index_of(conn) {
            let (addr, step) = (self.config.addr, self.step(index));
            self.loss.get_or_insert(Error::Closed { addr, step, why });
        }
    }
}
