//! What the control plane promises, tested on a data path in memory: [`super::testing`].

mod crash;
mod flow;
mod iscsi;
mod journal;

use super::testing::{FakeNode, Fuse, MemFile, World, journal};
use super::{
    Bdev, BdevName, Command, Control, DeviceSpec, FileEngine, FileSpec, Nqn, StoreName, Transport, VolumeName,
};
use std::cell::RefCell;
use std::rc::Rc;

/// A node on a machine with one file of 64 MiB.
struct Machine {
    file: MemFile,
    fuse: Fuse,
    world: Rc<RefCell<World>>,
    control: Control<FakeNode>,
}

impl Machine {
    fn new() -> Machine {
        let fuse = Fuse::of(u64::MAX);
        Machine::boot(MemFile::new(fuse.clone()), fuse, FakeNode::world(&[("/disk", 64 << 20), ("/two", 8 << 20)]))
    }

    fn boot(file: MemFile, fuse: Fuse, world: Rc<RefCell<World>>) -> Machine {
        let (journal, state) = journal(&file).expect("the journal opens");
        let control = Control::new(FakeNode::new(world.clone(), fuse.clone()), journal, state);
        super::testing::run(control.start()).expect("nothing to wait for");
        Machine { file, fuse, world, control }
    }

    /// What an operator sees, without what differs from run to run (UUIDs).
    fn view(&self) -> Vec<String> {
        let (bdevs, state) = (self.control.bdevs(), self.control.state());
        let called = |b: &Bdev| b.alias().unwrap_or_else(|| b.name());
        let name_of = |id| bdevs.iter().find(|b| b.id() == id).map_or("missing".to_owned(), called);
        let mut view = vec![format!("transport {:?}", state.transport())];
        for b in &bdevs {
            view.push(format!("bdev {} {}x{} ro={}", called(b), b.blocks(), b.block_size(), b.read_only()));
        }
        for store in state.stores() {
            view.push(format!("store {} on {}", store.name, name_of(store.device)));
        }
        for s in state.subsystems() {
            let spaces: Vec<String> =
                s.namespaces.values().map(|n| format!("{}={}", n.nsid, name_of(n.volume))).collect();
            let (hosts, any) = (&s.hosts, s.allow_any_host);
            view.push(format!("{} {spaces:?} {:?} {hosts:?} any={any}", s.nqn, s.listeners));
        }
        view.extend(state.referrals().map(|r| format!("referral {}", r.addr)));
        view.extend(state.iscsi().portal_groups().map(|g| format!("{g:?}")));
        for t in state.iscsi().targets() {
            let units: Vec<String> = t.luns.values().map(|l| format!("{}={}", l.lun, name_of(l.volume))).collect();
            view.push(format!("{} {units:?} {:?} {:?}", t.name, t.maps, t.redirects));
        }
        for b in bdevs.iter().filter(|b| state.reservations(b.id()).aptpl()) {
            let reservations = state.reservations(b.id());
            view.push(format!("{} {:?} {:?}", called(b), reservations.registrants(), reservations.reservation()));
        }
        view.sort();
        view
    }
}

fn file(path: &str) -> DeviceSpec {
    DeviceSpec::File(FileSpec {
        engine: FileEngine::Uring,
        path: path.into(),
        block_size: Some(4096),
        read_only: false,
    })
}

fn nqn(text: &str) -> Nqn {
    Nqn::new(&format!("nqn.2016-06.io.spdk:{text}")).expect("a legal NQN")
}

fn bdev(text: &str) -> BdevName {
    BdevName::new(text).expect("a legal name")
}

fn store(text: &str) -> StoreName {
    StoreName::new(text).expect("a legal name")
}

fn volume(text: &str) -> VolumeName {
    VolumeName::new(text).expect("a legal name")
}

const MIB: u64 = 1 << 20;

/// A store with a volume, exported at an address.
async fn furnish(control: &Control<FakeNode>) {
    control.create_device(bdev("U0"), None, file("/disk")).await.expect("create a device");
    control.create_store("U0", store("lvs")).await.expect("create a store");
    control.create_volume("lvs", volume("vol"), 16 * MIB, true).await.expect("create a volume");
    control.change(Command::CreateTransport(Transport::default())).await.expect("create the transport");
    let subsystem = super::Subsystem::new(nqn("cnode1"));
    control.change(Command::CreateSubsystem(subsystem)).await.expect("create a subsystem");
    let spec = super::NamespaceSpec { bdev: "lvs/vol".into(), ..super::NamespaceSpec::default() };
    assert_eq!(control.add_namespace(&nqn("cnode1"), &spec).await, Ok(1));
    let addr = "127.0.0.1:4420".parse().expect("an address");
    control.add_listener(&nqn("cnode1"), addr).await.expect("add a listener");
    control.change(Command::AddHost(nqn("cnode1"), nqn("host1"))).await.expect("add a host");
    iscsi::furnish(control).await;
}
