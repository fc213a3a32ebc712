//! Programs that go on without their command (SANITIZE, SBC-4 5.30): neither task management nor the end of a session ends
//! them. They live here, one at a unit at most, until they end by themselves or their unit is gone.

use super::conn::Conn;
use super::control::nexus_of;
use super::execute::REQUESTS_PER_TURN;
use super::fence::Then;
use super::lu::{self, Attentions, End, Event, Program, Step};
use super::target::{Env, Target};
use super::tasks::{Stage, Tag, Work};
use crate::base::{Time, VolumeId};
use crate::mem::{Buf, Pool};
use crate::net::{ConnId, Net};
use crate::volume::{Completion, Payload, Request, Submit, Volumes, reserve};
use crate::wire::scsi::{Sense, asc};

/// Programs of one core at once; a command that would be one more is told BUSY.
const DETACHED_MAX: usize = 64;

/// What a program waits for.
#[derive(Debug)]
enum Waits {
    /// Nothing: it is told this in the next turn.
    Turn(Event),
    /// Room in the volumes for this request.
    Room(Request, Option<Buf>),
    /// The end of its request.
    Volume,
    /// All cores.
    Cores,
    /// A time.
    Until(Time),
}

/// A program without its command.
#[derive(Debug)]
pub(super) struct Detached {
    program: Program,
    target: u32,
    lun: u16,
    volume: VolumeId,
    who: reserve::Nexus,
    /// The command that ends with it: connection, place and position of its task.
    command: Option<(ConnId, u16, u64)>,
    waits: Waits,
}

impl Target {
    /// A task's program goes on by itself. `end` ends the command at once.
    pub(super) fn detach<V>(&mut self, c: &mut Conn, place: u16, end: Option<End>, env: &mut Env<'_, V>) {
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("a task has a session");
        let who = nexus_of(session);
        let target = c.target.expect("a program runs at a target");
        let lun = c.tasks.at(place).lun;
        let volume = self.volume_of(c.session.expect("looked up above"), lun).expect("looked up before the step");
        let task = c.tasks.at(place);
        let Work::Running(program) = core::mem::replace(&mut task.work, Work::Failed) else {
            panic!("only programs have steps")
        };
        if self.detached.len() == DETACHED_MAX {
            program.cancel(env.pool);
            self.end_task(c, place, End::BUSY, env);
            return;
        }
        task.stage = Stage::Left;
        let command = end.is_none().then_some((c.id, place, task.serial));
        let waits = Waits::Turn(Event::Done);
        self.detached.insert(Detached { program, target, lun, volume, who, command, waits });
        if let Some(end) = end {
            self.end_task(c, place, end, env);
        }
    }

    /// A request of such a program ended.
    pub(super) fn detached_completed(&mut self, done: Completion) {
        let detached = self.detached.get_mut((done.tag & 0xffff) as usize).expect("a program waits for its request");
        assert!(matches!(detached.waits, Waits::Volume), "a request ends once");
        detached.waits = Waits::Turn(Event::Io { status: done.status, detail: done.detail, buf: done.buf });
    }

    /// All cores know what such a program changed.
    pub(super) fn detached_changed(&mut self, key: usize) {
        let detached = self.detached.get_mut(key).expect("a program waits for the cores");
        detached.waits = Waits::Turn(Event::Done);
    }

    /// When the next of them has something to do.
    pub(super) fn detached_wake_at(&self) -> Option<Time> {
        let when = |d: &Detached| match d.waits {
            Waits::Turn(_) | Waits::Room(..) => Some(Time(0)),
            Waits::Until(time) => Some(time),
            Waits::Volume | Waits::Cores => None,
        };
        self.detached.iter().filter_map(|(_, d)| when(d)).min()
    }

    /// Goes on with those that can. True when any did.
    pub(super) fn run_detached<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) -> bool {
        let mut worked = false;
        for key in 0..DETACHED_MAX {
            let Some(detached) = self.detached.get_mut(key) else { continue };
            let event = match core::mem::replace(&mut detached.waits, Waits::Volume) {
                Waits::Turn(event) => event,
                Waits::Until(time) if now >= time => Event::Again,
                Waits::Room(request, payload) => match submit(volumes, request, payload, pool) {
                    Submit::Done(done) => Event::Io { status: done.status, detail: done.detail, buf: done.buf },
                    Submit::Pending => continue,
                    Submit::Later(back) => {
                        detached.waits = Waits::Room(request, back);
                        continue;
                    }
                },
                waits => {
                    detached.waits = waits;
                    continue;
                }
            };
            worked = true;
            if let Some(end) = self.step_detached(key, event, now, volumes, pool) {
                let detached = self.detached.remove(key);
                detached.program.cancel(pool);
                match detached.command {
                    Some(command) => self.end_command(command, end, now, net, volumes, pool),
                    None => pool.put_all(end.data),
                }
            }
        }
        worked
    }

    /// Takes one program as far as it goes: its end when that has come.
    fn step_detached<V: Volumes>(
        &mut self,
        key: usize,
        mut event: Event,
        now: Time,
        volumes: &mut V,
        pool: &mut Pool,
    ) -> Option<End> {
        for _ in 0..REQUESTS_PER_TURN {
            let detached = &mut self.detached[key];
            let units = self.snapshot.targets.iter().position(|t| t.index == detached.target);
            let at = units.and_then(|n| {
                let at = super::units::place_of(&self.snapshot.targets[n].luns, detached.lun)?;
                (self.snapshot.targets[n].luns[at].info.id == detached.volume).then_some((n, at))
            });
            let Some((node, at)) = at else {
                pool.put_all(event.into_buf());
                return Some(End::check(Sense::illegal(asc::LUN_NOT_SUPPORTED)));
            };
            let units = &self.snapshot.targets[node].luns;
            let seen = &*volumes;
            let step = detached.program.resume(
                event,
                &mut lu::Cx {
                    unit: &units[at],
                    units,
                    nexus: lu::Nexus { who: &detached.who, group: detached.who.port },
                    data_out: None,
                    reservations: seen.reservations(detached.volume),
                    elsewhere: &|volume| seen.reservations(volume),
                    state: &mut self.nodes[node].states[at],
                    attentions: &mut Attentions::default(),
                    pool,
                },
            );
            match step {
                Step::Io { volume, kind, lba, blocks, fua, payload } => {
                    let tag = Tag::DETACHED << 56 | key as u64;
                    let request = Request { volume, kind, lba, blocks, fua, tag };
                    match submit(volumes, request, payload, pool) {
                        Submit::Done(done) => {
                            event = Event::Io { status: done.status, detail: done.detail, buf: done.buf };
                            continue;
                        }
                        Submit::Pending => detached.waits = Waits::Volume,
                        Submit::Later(back) => detached.waits = Waits::Room(request, back),
                    }
                }
                Step::Lu(change) => {
                    detached.waits = Waits::Cores;
                    let (target, lun) = (detached.target, detached.lun);
                    self.spread(target, lun, change, None, Then::Detached(key));
                }
                Step::Pause(ms) => detached.waits = Waits::Until(now.after_ms(u64::from(ms))),
                Step::Later => detached.waits = Waits::Turn(Event::Again),
                Step::Reserve(_) | Step::Detach(_) | Step::Send { .. } | Step::Take(_) => {
                    panic!("data, reservations and detaching belong to commands")
                }
                Step::End(end) => return Some(end),
            }
            return None;
        }
        self.detached[key].waits = Waits::Turn(event);
        None
    }

    /// Ends the command whose program went on by itself, where it is still there.
    fn end_command<N: Net, V: Volumes>(
        &mut self,
        (conn, place, serial): (ConnId, u16, u64),
        end: End,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        let Some(mut c) = self.take(conn) else { return pool.put_all(end.data) };
        let meant = c.tasks.get(place).is_some_and(|t| t.serial == serial);
        match net.tx(conn) {
            Some(tx) if meant => self.end_task(&mut c, place, end, &mut Env { now, volumes, tx, pool }),
            _ => pool.put_all(end.data),
        }
        self.put(c);
    }
}

fn submit<V: Volumes>(volumes: &mut V, request: Request, payload: Option<Buf>, pool: &mut Pool) -> Submit {
    volumes.submit(request, payload.map_or(Payload::None, Payload::Owned), pool)
}
