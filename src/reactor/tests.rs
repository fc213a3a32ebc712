//! Whole reactors: messages between them and the control thread, sleep and wake, the price of being idle, stalls, and
//! the ways to start and stop.

use super::*;
use crate::base::CoreId;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Never = std::convert::Infallible;

/// A message that visits every core `left` times in a circle and then reports to the control thread.
#[derive(Debug, PartialEq)]
enum Message {
    Token { left: u32 },
    Stamp { sent: Time, received: Time },
    Stall(u64),
    Busy(bool),
    Timer { delay_ns: u64 },
}

/// Passes tokens on, stamps times, stalls when told to.
struct Ring {
    /// What could not be sent because a ring was full.
    held: Vec<(Option<CoreId>, Message)>,
    busy: bool,
    timers: Wheel,
    /// When a timer was armed, by its token.
    armed: Vec<Time>,
    pollable: bool,
    dropped: Arc<AtomicU64>,
}

impl Ring {
    fn send(&mut self, turn: &mut Turn<'_, Message>, to: Option<CoreId>, message: Message) {
        let sent = match to {
            Some(core) => turn.send(core, message),
            None => turn.send_control(message),
        };
        if let Err(back) = sent {
            self.held.push((to, back));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Core for Ring {
    type Message = Message;
    const STAGES: &'static [&'static str] = &["mail", "store", "send"];

    fn tick(&mut self, turn: &mut Turn<'_, Message>) -> Work {
        let mut worked = self.busy;
        for (to, message) in std::mem::take(&mut self.held) {
            worked = true;
            self.send(turn, to, message);
        }
        while let Some((from, message)) = turn.receive() {
            worked = true;
            match message {
                Message::Token { left: 0 } => self.send(turn, None, Message::Token { left: 0 }),
                Message::Token { left } => {
                    let next = CoreId((turn.core().0 + 1) % turn.cores() as u16);
                    let to = if next == turn.core() { None } else { Some(next) };
                    self.send(turn, to, Message::Token { left: left - 1 });
                }
                Message::Stamp { sent, .. } => {
                    assert_eq!(from, Peer::Control);
                    self.send(turn, None, Message::Stamp { sent, received: turn.now });
                }
                Message::Stall(ms) => {
                    turn.stage(1);
                    std::thread::sleep(Duration::from_millis(ms));
                    turn.stage(2);
                }
                Message::Busy(busy) => self.busy = busy,
                Message::Timer { delay_ns } => {
                    self.timers.arm(turn.now.after_ns(delay_ns), self.armed.len() as u64).unwrap();
                    self.armed.push(turn.now);
                }
            }
        }
        let mut fired = Vec::new();
        self.timers.expire(turn.now, |token| fired.push(token));
        for token in fired {
            worked = true;
            let sent = self.armed[token as usize];
            self.send(turn, None, Message::Stamp { sent, received: turn.now });
        }
        match (worked, turn.stopping) {
            (true, _) => Work::Busy,
            (false, true) => Work::Finished,
            (false, false) => Work::Idle,
        }
    }

    fn wait_fds(&self, _: &mut Vec<RawFd>) -> bool {
        self.pollable
    }

    fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }
}

struct Rig {
    reactors: Reactors,
    to: ControlSender<Message>,
    from: ControlReceiver<Message>,
    dropped: Arc<AtomicU64>,
}

fn rig(config: &Config) -> Rig {
    let dropped = Arc::new(AtomicU64::new(0));
    let builder = |_| {
        let dropped = Arc::clone(&dropped);
        let build = move |_| {
            let timers = Wheel::new(Clock::new().now(), 100);
            Ok(Ring { held: Vec::new(), busy: false, timers, armed: Vec::new(), pollable: true, dropped })
        };
        Box::new(build) as Builder<Ring, Never>
    };
    let started = start(config, config.cpus.iter().map(builder).collect()).unwrap();
    Rig { reactors: started.reactors, to: started.to_cores, from: started.from_cores, dropped }
}

/// Two reactors, on two CPUs where there are two.
fn two() -> Config {
    let there = core_affinity::get_core_ids().unwrap();
    Config::new(vec![there[0].id, there[there.len() - 1].id])
}

fn one() -> Config {
    let there = core_affinity::get_core_ids().unwrap();
    Config::new(vec![there[there.len() - 1].id])
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "timed out: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn tokens_go_round_and_a_stop_drains() {
    let Rig { reactors, to, mut from, dropped } = rig(&Config { mailbox: 64, ..two() });
    let tokens = 200;
    for _ in 0..tokens {
        while to.try_send(CoreId(0), Message::Token { left: 500 }).is_err() {
            std::thread::yield_now();
        }
    }
    // Asked to stop in the middle of it: every token must still arrive.
    reactors.stop();
    let mut home = 0;
    wait_for("all tokens home", || {
        while let Some((_, message)) = from.try_recv() {
            assert_eq!(message, Message::Token { left: 0 });
            home += 1;
        }
        (home == tokens).then_some(())
    });
    reactors.join(Duration::from_secs(5)).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 2, "cores are dropped by their threads");
}

#[test]
fn control_thread_awaits_messages() {
    let Rig { reactors, to, mut from, .. } = rig(&two());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for round in 0..50u64 {
            // Long pauses let everybody fall asleep, short ones catch them on the way.
            tokio::time::sleep(Duration::from_micros(round % 10 * 200)).await;
            for _ in 0..3 {
                to.send(CoreId((round % 2) as u16), Message::Token { left: 3 }).await;
            }
            for _ in 0..3 {
                let got = tokio::time::timeout(Duration::from_secs(5), from.recv()).await;
                assert_eq!(got.expect("a wake-up was lost").unwrap().1, Message::Token { left: 0 });
            }
        }
    });
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}

/// CPU time of the whole process and of this thread alone, ns.
fn cpu_ns(who: libc::c_int) -> u64 {
    // SAFETY: an all-zero rusage is a valid value of that plain struct, and getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

/// CPU time of the thread with this name, ns, as the kernel's scheduler counts it.
fn thread_cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = |dir: &std::path::Path| std::fs::read_to_string(dir.join("comm")).is_ok_and(|c| c.trim() == name);
    let found: Vec<u64> = tasks
        .map(|t| t.path())
        .filter(|dir| named(dir))
        .filter_map(|dir| std::fs::read_to_string(dir.join("schedstat")).ok())
        .filter_map(|s| s.split(' ').next()?.parse().ok())
        .collect();
    found.into_iter().sum()
}

#[test]
fn idle_is_cheap_and_wakes_soon() {
    // Alone in a process of its own, so that no other test's threads carry the same name or load the clock.
    if std::env::var_os("POLLUX_TEST_ALONE").is_none() {
        let exe = std::env::current_exe().unwrap();
        let name = "reactor::tests::idle_is_cheap_and_wakes_soon";
        let out = std::process::Command::new(exe)
            .args(["--exact", name, "--nocapture"])
            .env("POLLUX_TEST_ALONE", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        return;
    }
    let Rig { reactors, to, mut from, .. } = rig(&one());
    std::thread::sleep(Duration::from_millis(50));
    let (before, begun) = (thread_cpu_ns("reactor-0"), Instant::now());
    std::thread::sleep(Duration::from_millis(1200));
    let share = (thread_cpu_ns("reactor-0") - before) as f64 / begun.elapsed().as_nanos() as f64;
    assert!(share < 0.03, "an idle reactor used {:.2}% of its core", share * 100.0);
    assert!(cpu_ns(libc::RUSAGE_SELF) > 0);
    assert!(reactors.stats()[0].in_interrupt);
    let mut waits: Vec<u64> = (0..40)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(3));
            assert!(reactors.stats()[0].in_interrupt, "asleep before each try");
            to.try_send(CoreId(0), Message::Stamp { sent: Clock::new().now(), received: Time(0) }).unwrap();
            let answer = wait_for("a stamp", || from.try_recv());
            let (Peer::Core(CoreId(0)), Message::Stamp { sent, received }) = answer else { panic!("{answer:?}") };
            received.since(sent)
        })
        .collect();
    waits.sort_unstable();
    println!("idle {:.2}% wake p50 {} ns max {} ns", share * 100.0, waits[20], waits[39]);
    // The median says what the reactor does; single wakes also measure who else runs on this machine.
    assert!(waits[20] < 100_000, "woke after {} ns", waits[20]);
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_busy_core_never_sleeps() {
    let Rig { reactors, to, .. } = rig(&one());
    to.try_send(CoreId(0), Message::Busy(true)).unwrap();
    wait_for("busy", || (reactors.stats()[0].busy_ns > 0).then_some(()));
    let before = reactors.stats().remove(0);
    std::thread::sleep(Duration::from_millis(100));
    let after = reactors.stats().remove(0);
    assert_eq!(after.sleeps, before.sleeps);
    assert!(!after.in_interrupt && after.turns > before.turns + 100);
    assert_eq!(after.idle_ns, before.idle_ns);
    assert!(after.busy_ns - before.busy_ns > 50_000_000, "busy time is counted");
    to.try_send(CoreId(0), Message::Busy(false)).unwrap();
    wait_for("asleep", || reactors.stats()[0].in_interrupt.then_some(()));
    let idle = reactors.stats().remove(0);
    std::thread::sleep(Duration::from_millis(20));
    reactors.stop();
    wait_for("idle time counted", || (reactors.stats()[0].idle_ns >= idle.idle_ns + 15_000_000).then_some(()));
    reactors.join(Duration::from_secs(5)).unwrap();
}

#[test]
fn poll_always_never_sleeps() {
    let Rig { reactors, .. } = rig(&Config { poll: Poll::Always, ..one() });
    std::thread::sleep(Duration::from_millis(60));
    let stats = reactors.stats().remove(0);
    assert_eq!((stats.sleeps, stats.in_interrupt, stats.busy_ns), (0, false, 0));
    assert!(stats.turns > 100 && stats.idle_ns > 0);
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}

#[test]
fn timers_end_a_sleep() {
    let Rig { reactors, to, mut from, .. } = rig(&one());
    for delay_ms in [2u64, 20, 7] {
        to.try_send(CoreId(0), Message::Timer { delay_ns: delay_ms * 1_000_000 }).unwrap();
        let (_, message) = wait_for("a timer", || from.try_recv());
        let Message::Stamp { sent, received } = message else { panic!("{message:?}") };
        let took = received.since(sent);
        assert!(took >= delay_ms * 1_000_000, "fired {took} ns after it was armed");
        assert!(took < delay_ms * 1_000_000 + 100_000_000, "fired {took} ns after it was armed");
    }
    assert!(reactors.stats()[0].sleeps > 0);
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_stall_is_named() {
    let Rig { mut reactors, to, .. } = rig(&Config { stall_ns: 20_000_000, ..one() });
    to.try_send(CoreId(0), Message::Stall(60)).unwrap();
    let stuck = wait_for("stuck while it lasts", || reactors.stuck(20_000_000).first().copied());
    assert_eq!((stuck.core, stuck.stage), (CoreId(0), "store"));
    let stall = wait_for("noted when it is over", || reactors.stalls().find(|s| s.stage == "store").copied());
    assert_eq!(stall.core, CoreId(0));
    assert!((60_000_000..2_000_000_000).contains(&stall.ns), "{} ns", stall.ns);
    let stats = reactors.stats().remove(0);
    assert!(stats.stalls >= 1);
    assert!(stats.stages.iter().any(|s| s.name == "store" && s.ns >= 60_000_000));
    wait_for("asleep and not stuck", || reactors.stuck(20_000_000).is_empty().then_some(()));
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}

#[derive(Debug, thiserror::Error)]
#[error("no")]
struct No;

#[test]
fn a_core_that_can_not_be_built_stops_the_others() {
    let dropped = Arc::new(AtomicU64::new(0));
    let ring = |dropped: &Arc<AtomicU64>| Ring {
        held: Vec::new(),
        busy: false,
        timers: Wheel::new(Time(0), 1),
        armed: Vec::new(),
        pollable: false,
        dropped: Arc::clone(dropped),
    };
    let config = two();
    let shared = Arc::clone(&dropped);
    let builders: Vec<Builder<Ring, No>> = vec![Box::new(move |_| Ok(ring(&shared))), Box::new(|_| Err(No))];
    let Err(error) = start(&config, builders) else { panic!("started with a core missing") };
    assert!(matches!(error, StartError::Build(1, No)), "{error}");
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "the other core was stopped before the error was returned");
    let config = Config::new(vec![4095]);
    let shared = Arc::clone(&dropped);
    let builders: Vec<Builder<Ring, No>> = vec![Box::new(move |_| Ok(ring(&shared)))];
    assert!(matches!(start(&config, builders), Err(StartError::Pin(0, 4095))));
}

/// A core that waits for a descriptor, as one with a net or a device does.
struct Watcher(std::os::unix::net::UnixStream);

impl Core for Watcher {
    type Message = Time;
    const STAGES: &'static [&'static str] = &["all"];
    fn tick(&mut self, turn: &mut Turn<'_, Time>) -> Work {
        use std::io::Read;
        match self.0.read(&mut [0; 16]) {
            Ok(n) if n > 0 => {
                turn.send_control(turn.now).unwrap();
                Work::Busy
            }
            _ if turn.stopping => Work::Finished,
            _ => Work::Idle,
        }
    }
    fn wait_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        fds.push(self.0.as_raw_fd());
        true
    }
    fn next_deadline(&self) -> Option<Time> {
        None
    }
}

#[test]
fn a_descriptor_ends_a_sleep() {
    use std::io::Write;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let builders: Vec<Builder<Watcher, Never>> = vec![Box::new(|_| Ok(Watcher(theirs)))];
    let Started { reactors, from_cores: mut from, .. } = start(&one(), builders).unwrap();
    for _ in 0..10 {
        wait_for("asleep", || reactors.stats()[0].in_interrupt.then_some(()));
        ours.write_all(b"x").unwrap();
        wait_for("woken by the descriptor", || from.try_recv());
    }
    reactors.stop();
    reactors.join(Duration::from_secs(5)).unwrap();
}
