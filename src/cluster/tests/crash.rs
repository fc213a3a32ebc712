//! The process is killed at every persistent step of every mutating call, with what the medium had not synced kept,
//! dropped or torn. Afterwards the configuration is the one before or the one after the call, and what was answered is
//! there.

use super::iscsi::{nexus, portals, target_spec};
use super::*;
use crate::base::rng::Rng;
use crate::cluster::iscsi::Change;
use crate::cluster::testing::run;
use crate::cluster::{DelayTimes, Error, JournalError, LunSpec, NamespaceSpec, Referral, TargetSpec};
use crate::volume::reserve::Op;
use std::future::Future;
use std::pin::Pin;

type Act = for<'a> fn(&'a Control<FakeNode>) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Every mutating call, each on the furnished node.
fn acts() -> Vec<(&'static str, Act)> {
    vec![
        ("create device", |c| Box::pin(async { c.create_device(bdev("U1"), None, file("/two")).await.map(drop) })),
        ("create wrapper", |c| {
            Box::pin(async {
                c.create_device(bdev("U1"), None, file("/two")).await?;
                let base = c.bdev("U1")?.id();
                let spec = DeviceSpec::Delay { base, times: DelayTimes::default() };
                c.create_device(bdev("D1"), None, spec).await.map(drop)
            })
        }),
        ("delete device", |c| Box::pin(async { c.delete_device("U0", "a file", |_| true).await })),
        ("delete store", |c| Box::pin(async { c.delete_store("lvs").await })),
        ("rename store", |c| Box::pin(async { c.rename_store("lvs", store("other")).await })),
        ("create volume", |c| Box::pin(async { c.create_volume("lvs", volume("v2"), MIB, false).await.map(drop) })),
        ("delete volume", |c| Box::pin(async { c.delete_volume("lvs/vol").await })),
        ("resize volume", |c| Box::pin(async { c.resize_volume("lvs/vol", 2 * MIB).await })),
        ("rename volume", |c| Box::pin(async { c.rename_volume("lvs/vol", volume("new")).await })),
        ("write protect", |c| Box::pin(async { c.set_read_only("lvs/vol").await })),
        ("create subsystem", |c| {
            Box::pin(async { c.change(Command::CreateSubsystem(crate::cluster::Subsystem::new(nqn("c2")))).await })
        }),
        ("delete subsystem", |c| Box::pin(async { c.change(Command::DeleteSubsystem(nqn("cnode1"))).await })),
        ("remove namespace", |c| Box::pin(async { c.change(Command::RemoveNamespace(nqn("cnode1"), 1)).await })),
        ("add listener", |c| Box::pin(async { c.add_listener(&nqn("cnode1"), "[::1]:4421".parse().unwrap()).await })),
        ("remove listener", |c| {
            let addr = "127.0.0.1:4420".parse().unwrap();
            Box::pin(async move { c.change(Command::RemoveListener(nqn("cnode1"), addr)).await })
        }),
        ("remove host", |c| Box::pin(async { c.change(Command::RemoveHost(nqn("cnode1"), nqn("host1"))).await })),
        ("allow any", |c| Box::pin(async { c.change(Command::AllowAnyHost(nqn("cnode1"), true)).await })),
        ("create portal group", |c| Box::pin(async { c.create_portal_group(portals(2, "10.0.0.2:3260")).await })),
        ("delete portal group", |c| Box::pin(async { c.change_iscsi(Change::DeletePortalGroup(1)).await })),
        ("create target", |c| {
            let luns = vec![LunSpec { bdev: "lvs/vol".into(), lun: Some(0) }];
            let spec = TargetSpec { name: "d2".into(), luns, ..target_spec() };
            Box::pin(async move { c.create_target(&spec).await.map(drop) })
        }),
        ("delete target", |c| {
            Box::pin(async {
                let name = c.state().iscsi().targets().next().expect("one").name.clone();
                c.change_iscsi(Change::DeleteTarget(name)).await
            })
        }),
        ("reserve", |c| {
            Box::pin(async {
                let volume = c.bdev("lvs/vol").expect("there").id();
                let register = Op::RegisterIgnore { new_key: 9, aptpl: true, ports: None };
                let done = c.reserve(volume, &nexus(2), &register).await;
                done.map(drop).map_err(|_| Error::Journal(JournalError::Failed))
            })
        }),
        ("add referral", |c| {
            let referral = Referral { addr: "10.0.0.1:8009".parse().unwrap(), nqn: Nqn::discovery() };
            Box::pin(async move { c.change(Command::AddReferral(referral)).await })
        }),
    ]
}

/// Calls that make an object on a fresh device, for which the furnished node has no room.
fn makers() -> Vec<(&'static str, Act)> {
    vec![
        ("create store", |c| Box::pin(async { c.create_store("U1", store("second")).await.map(drop) })),
        ("add namespace", |c| {
            let spec = NamespaceSpec { bdev: "U1".into(), ..NamespaceSpec::default() };
            Box::pin(async move { c.add_namespace(&nqn("cnode1"), &spec).await.map(drop) })
        }),
    ]
}

fn furnished(second: bool) -> Machine {
    let machine = Machine::new();
    run(furnish(&machine.control)).expect("nothing to wait for");
    if second {
        let made = run(machine.control.create_device(bdev("U1"), None, file("/two")));
        made.expect("nothing to wait for").expect("the second device opens");
    }
    machine
}

/// A call may be made of several: each intermediate state is a legal one, as each call was answered.
fn stages(name: &str, second: bool, act: Act) -> Vec<Vec<String>> {
    let machine = furnished(second);
    let mut views = vec![machine.view()];
    if name == "create wrapper" {
        let made = run(machine.control.create_device(bdev("U1"), None, file("/two")));
        made.expect("nothing to wait for").expect("the first half works");
        views.push(machine.view());
        let machine = furnished(second);
        run(act(&machine.control)).expect("nothing to wait for").expect("the call works");
        views.push(machine.view());
        return views;
    }
    run(act(&machine.control)).expect("nothing to wait for").expect("the call works");
    views.push(machine.view());
    views
}

fn sweep(name: &str, second: bool, act: Act, seeds: u64) -> u64 {
    let legal = stages(name, second, act);
    assert_ne!(legal[0], legal[legal.len() - 1], "{name} changes nothing");
    let mut points = 0;
    for steps in 0.. {
        let mut finished = true;
        for seed in 0..seeds {
            let machine = furnished(second);
            machine.fuse.set(steps);
            let answer = run(act(&machine.control));
            let answered = matches!(answer, Some(Ok(())));
            finished &= machine.fuse.left() > 0;
            points += 1;
            let mut rng = Rng::new(seed * 1000 + steps);
            let fuse = Fuse::of(u64::MAX);
            let once = Machine::boot(machine.file.crash(&mut rng, fuse.clone()), fuse, machine.world.clone());
            let view = once.view();
            assert!(
                legal.contains(&view),
                "{name}, killed after {steps} steps, seed {seed}: {view:#?}\nnot in {legal:#?}"
            );
            assert!(!answered || view == legal[legal.len() - 1], "{name}, step {steps}: answered and not there");
            // A second crash right after the start changes nothing any more.
            let fuse = Fuse::of(u64::MAX);
            let twice = Machine::boot(once.file.crash(&mut rng, fuse.clone()), fuse, once.world.clone());
            assert_eq!(twice.view(), view, "{name}, killed after {steps} steps, then again");
            assert!(twice.control.problems().is_empty(), "{name}: {:?}", twice.control.problems());
        }
        if finished {
            return points;
        }
    }
    unreachable!("the steps of a call are few")
}

#[test]
fn every_call_killed_at_every_step_leaves_before_or_after() {
    let mut points = 0;
    for (name, act) in acts() {
        points += sweep(name, false, act, 2);
    }
    for (name, act) in makers() {
        points += sweep(name, true, act, 2);
    }
    assert!(points > 250, "only {points} points: the calls no longer persist step by step");
}

#[test]
fn a_crash_while_a_crash_is_mended_is_mended_too() {
    // Deleting leaves an intent behind; kill the start that carries it out at each of its steps.
    let deletions = acts().into_iter().filter(|(name, _)| matches!(*name, "delete volume" | "delete store"));
    for (name, act) in deletions {
        let legal = stages(name, false, act);
        for steps in 1..24 {
            for again in 0..12 {
                let machine = furnished(false);
                machine.fuse.set(steps);
                let _ = run(act(&machine.control));
                let mut rng = Rng::new(steps * 100 + again);
                let fuse = Fuse::of(u64::MAX);
                let file = machine.file.crash(&mut rng, fuse.clone());
                let (journal, state) = journal(&file).expect("the journal opens");
                let control = Control::new(FakeNode::new(machine.world.clone(), fuse.clone()), journal, state);
                fuse.set(again);
                let _ = run(control.start());
                let fuse = Fuse::of(u64::MAX);
                let last = Machine::boot(file.crash(&mut rng, fuse.clone()), fuse, machine.world.clone());
                assert!(legal.contains(&last.view()), "{name}, {steps}, {again}: {:#?}", last.view());
            }
        }
    }
}
