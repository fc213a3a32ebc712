//! The crash tests of the log store: simulated power cuts, ailing disks, damage to every structure, and (with the
//! feature `planted-bugs`) the proof that they would notice.
//!
//! `POLLUX_SIM_SEED` is the first seed (1 by default), `POLLUX_SIM_POINTS` the number of crash points of
//! `power_cuts_lose_nothing` (5,000 by default); the other tests scale with it. Every failure prints its seed and the
//! command that plays it again.

mod damage;
mod decoders;
#[cfg(feature = "planted-bugs")]
mod planted;
mod power;
mod regressions;

use pollux::sim::{Bench, Failure, Swarm};

/// Crash points unless the environment says otherwise.
const POINTS: u64 = 5_000;

/// A number from the environment; anything but a number is refused rather than ignored.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The first seed.
fn first_seed() -> u64 {
    setting("POLLUX_SIM_SEED", 1)
}

/// Crash points wanted.
fn points() -> u64 {
    setting("POLLUX_SIM_POINTS", POINTS)
}

/// Scales a count of seeds with the number of points asked for; at least 1.
fn scaled(count: u64) -> u64 {
    (count * points() / POINTS).max(1)
}

/// Does the work of one seed; a failure ends the test with the command that plays it again.
fn play(bench: &mut Bench, test: &str, seed: u64, work: impl FnOnce(&mut Bench) -> Result<(), Failure>) {
    if let Err(failure) = bench.guard(work) {
        panic!(
            "seed {seed}: {failure}\n{:?}\nreplay: POLLUX_SIM_SEED={seed} POLLUX_SIM_POINTS=1 cargo test --release --test crash {test} -- --nocapture",
            Swarm::draw(seed)
        );
    }
}
