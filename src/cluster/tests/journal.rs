//! The journal by itself: every state survives, damage is noticed, the directory is ours alone.

use super::*;
use crate::base::VolumeId;
use crate::base::rng::Rng;
use crate::cluster::iscsi::{
    AuthGroup, Change, Chap, Initiator, InitiatorGroup, Lun, Map, Netmask, Options, PortalGroup, Secret, TargetNode,
};
use crate::cluster::record::{NodeRecord, Record};
use crate::cluster::{
    Device, FORMAT, Intent, IscsiName, Journal, JournalError, Listener, Namespace, Referral, Reserved, State, Store,
    Subsystem, Visibility,
};
use crate::volume::Reservations;
use crate::volume::reserve::Op;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use uuid::Uuid;

/// A command about the few names there are, so that commands meet.
fn random(rng: &mut Rng, state: &State) -> Command {
    let id = VolumeId(rng.below(u64::from(state.next_id().0) + 1) as u32);
    let stores: Vec<Uuid> = state.stores().map(|s| s.uuid).collect();
    let picked = stores.get(rng.below(4) as usize).copied().unwrap_or(Uuid::from_u128(1));
    let name = nqn(&format!("c{}", rng.below(3)));
    let addr = format!("127.0.0.1:{}", 4420 + rng.below(2)).parse().unwrap();
    let fresh = Uuid::from_u128(u128::from(rng.next_u64()) | 1 << 100);
    match rng.below(24) {
        19..23 => Command::Iscsi(change(rng, state, id)),
        23 => {
            let who = super::iscsi::nexus(rng.below(3) as u8);
            let op = Op::RegisterIgnore { new_key: rng.below(3), aptpl: true, ports: None };
            let store = if state.device(id).is_some() { None } else { stores.first().copied() };
            let next = state.reservations(id).apply(&who, &op).expect("always works").next;
            // A restart forgets PRgeneration.
            let kept = next.kept().and_then(|(who, what)| Reservations::restored(who.to_vec(), what.cloned()));
            let there = state.device(id).is_some() || (store.is_some() && id.0 != 0);
            let value = std::sync::Arc::new(kept.filter(|_| there).unwrap_or_default());
            Command::SetReservations(id, Reserved { store, value })
        }
        0..4 => {
            let spec = match rng.below(3) {
                0 => DeviceSpec::Fault { base: id },
                _ => DeviceSpec::Malloc {
                    block_size: 4096,
                    blocks: 1 + rng.below(100),
                    physical_block: rng.chance(50).then_some(4096),
                },
            };
            let device = Device { id: state.next_id(), name: bdev(&format!("B{}", rng.below(6))), uuid: fresh, spec };
            Command::AddDevice(device)
        }
        4 => Command::RemoveDevice(id),
        5 | 6 => {
            let made = Store { uuid: fresh, name: store(&format!("s{}", rng.below(3))), device: id };
            Command::AddStore { store: made, floor: VolumeId(state.next_id().0 + rng.below(3) as u32) }
        }
        7 => Command::RenameStore(picked, store(&format!("s{}", rng.below(4)))),
        8 => Command::RemoveStore(picked),
        9 => Command::TakeId,
        10 => Command::RemoveVolume { store: picked, id },
        11 => match state.intents().next() {
            Some(intent) => Command::Finish(*intent),
            None => Command::Finish(Intent::WipeStore { store: picked }),
        },
        12 => Command::CreateTransport(Transport::default()),
        13 => Command::CreateSubsystem(Subsystem::new(name)),
        14 => match rng.below(4) {
            0 => Command::DeleteSubsystem(name),
            1 => Command::AddReferral(Referral { addr, nqn: name }),
            _ => Command::RemoveReferral(addr),
        },
        15 => {
            let device = state.device(id).map(|d| d.name.to_string());
            let store = if device.is_some() { None } else { stores.first().copied() };
            let namespace = Namespace {
                nsid: rng.below(4) as u32,
                // A volume's id, when it is not a device's.
                volume: if device.is_none() && store.is_none() { VolumeId(0) } else { id },
                store,
                bdev: device.unwrap_or_else(|| "volume".into()),
                nguid: [1; 16],
                eui64: [0; 8],
                uuid: fresh,
                anagrpid: 0,
                visible: if rng.chance(50) { Visibility::All } else { Visibility::Only(BTreeSet::new()) },
            };
            if namespace.volume.0 == 0 { Command::TakeId } else { Command::AddNamespace(name, namespace) }
        }
        16 => match rng.below(3) {
            0 => Command::RemoveNamespace(name, 1 + rng.below(3) as u32),
            1 => Command::ShowNamespace(name, 1 + rng.below(3) as u32, nqn("host")),
            _ => Command::HideNamespace(name, 1 + rng.below(3) as u32, nqn("host")),
        },
        17 => match rng.below(2) {
            0 => Command::AddListener(name, Listener { addr }),
            _ => Command::RemoveListener(name, addr),
        },
        _ => match rng.below(3) {
            0 => Command::AddHost(name, nqn("host")),
            1 => Command::RemoveHost(name, nqn("host")),
            _ => Command::AllowAnyHost(name, rng.chance(50)),
        },
    }
}

/// A change of few iSCSI objects, so that changes meet.
fn change(rng: &mut Rng, state: &State, id: VolumeId) -> Change {
    let mut some = |n: u64| rng.below(n);
    let (tag, group) = (1 + some(3) as u16, 1 + some(3) as u32);
    let name = IscsiName::new(&format!("iqn.2016-06.io.spdk:t{}", some(3))).unwrap();
    let map = Map { portal_group: tag, initiator_group: group };
    let store = if state.device(id).is_some() { None } else { state.stores().next().map(|s| s.uuid) };
    let real = id.0 != 0 && (state.device(id).is_some() || store.is_some());
    let lun = Lun { lun: 0, volume: id, store, bdev: "b".into() };
    match some(16) {
        0 => Change::SetOptions(Options { max_sessions: 1 + some(9) as u32, ..Options::default() }),
        1 => Change::SetDiscoveryAuth(Chap { required: some(2) == 0, group, ..Chap::default() }),
        2 | 3 => {
            // Some of these are NVMe's listeners.
            let portals = vec![format!("127.0.0.1:{}", 4420 + some(4)).parse().unwrap()];
            Change::CreatePortalGroup(PortalGroup {
                tag,
                portals,
                private: some(2) == 0,
                started: some(2) == 0,
                auth: None,
            })
        }
        4 => Change::StartPortalGroup(tag),
        5 => Change::DeletePortalGroup(tag),
        6 | 7 => {
            let (initiators, netmasks) = (vec![Initiator::new("ANY").unwrap()], vec![Netmask::new("ANY").unwrap()]);
            Change::CreateInitiatorGroup(InitiatorGroup { tag: group, initiators, netmasks })
        }
        8 => Change::DeleteInitiatorGroup(group),
        9 => Change::CreateAuthGroup(AuthGroup { tag: group, secrets: Vec::new() }),
        10 => {
            let secret = Secret { user: "u".into(), secret: "0123456789ab".into(), mutual: None };
            Change::AddSecret(group, secret)
        }
        11 | 12 if real => {
            let luns = std::collections::BTreeMap::from([(0, lun)]);
            let maps = if some(2) == 0 { vec![map] } else { vec![] };
            Change::CreateTarget(TargetNode { maps, luns, ..TargetNode::new(name) })
        }
        13 if real => Change::AddLun(name, None, lun),
        14 => Change::AddMaps(name, vec![map]),
        15 => Change::RemoveMaps(name, vec![map]),
        _ => Change::DeleteTarget(name),
    }
}

#[test]
fn any_sequence_of_commands_comes_back_from_the_journal() {
    let mut accepted = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let file = MemFile::new(Fuse::of(u64::MAX));
        let (mut journal_now, mut state) = journal(&file).unwrap();
        for _ in 0..80 {
            let command = random(&mut rng, &state);
            let before = state.clone();
            match state.apply(&command) {
                Err(_) => assert_eq!(state, before, "a refused command changed something: {command:?}"),
                Ok((next, _)) => {
                    journal_now.commit(&state, &next).unwrap();
                    state = next;
                    accepted += 1;
                }
            }
        }
        drop(journal_now);
        let (_, again) = journal(&file.crash(&mut rng, Fuse::of(u64::MAX))).expect("every reachable state is legal");
        assert_eq!(again, state, "seed {seed}");
    }
    assert!(accepted > 500, "only {accepted} commands were accepted");
}

/// Nodes that were set up before namespaces could be hidden keep showing all of theirs.
#[test]
fn a_namespace_of_an_older_journal_is_seen_by_all() {
    let namespace = Namespace {
        nsid: 1,
        volume: VolumeId(1),
        store: None,
        bdev: "B".into(),
        nguid: [1; 16],
        eui64: [0; 8],
        uuid: Uuid::from_u128(1),
        anagrpid: 1,
        visible: Visibility::Only(BTreeSet::from([nqn("host")])),
    };
    let mut value = ciborium::Value::serialized(&namespace).unwrap();
    assert_eq!(value.deserialized::<Namespace>().unwrap(), namespace);
    let ciborium::Value::Map(fields) = &mut value else { panic!("a record is a map") };
    let before = fields.len();
    fields.retain(|(name, _)| name.as_text() != Some("visible"));
    assert_eq!(fields.len(), before - 1);
    let old = value.deserialized::<Namespace>().unwrap();
    assert_eq!(old, Namespace { visible: Visibility::All, ..namespace });
}

#[test]
fn a_commit_that_fails_is_the_last_one() {
    let machine = Machine::new();
    machine.file.set_broken(true);
    let change = || machine.control.change(Command::CreateTransport(Transport::default()));
    let first = crate::cluster::testing::run(change()).unwrap();
    assert!(
        matches!(first, Err(crate::cluster::Error::Journal(JournalError::Os { errno: libc::EIO, .. }))),
        "{first:?}"
    );
    machine.file.set_broken(false);
    let second = crate::cluster::testing::run(change()).unwrap();
    assert_eq!(second, Err(crate::cluster::Error::Journal(JournalError::Failed)));
    assert!(machine.control.state().transport().is_none());
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let machine = Machine::new();
    crate::cluster::testing::run(furnish(&machine.control)).unwrap();
    let file = machine.file.clone();
    drop(machine);
    let (_, state) = journal(&file.copy()).unwrap();
    let (mut noticed, mut wrong) = (0, Vec::new());
    // The header bit by bit, written pages here and there, pages that were never written now and then.
    let written =
        |byte: &usize| *byte < 512 || byte.is_multiple_of(512) || (byte.is_multiple_of(7) && file.holds_data(*byte));
    for byte in (0..file.bytes()).filter(written) {
        let copy = file.copy();
        copy.flip(byte * 8 + byte % 8);
        match journal(&copy) {
            Err(_) => noticed += 1,
            Ok((_, found)) if found == state => {}
            Ok(_) => wrong.push(byte),
        }
    }
    assert!(wrong.is_empty(), "{} flips gave another state: {:?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert!(noticed > 200, "only {noticed} flips were noticed");
}

#[test]
fn the_directory_is_private_and_has_one_owner() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("deep/state");
    let (first, state) = Journal::open(&dir, VolumeId(7)).unwrap();
    assert_eq!(state.next_id(), VolumeId(7));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o750);
    assert_eq!(mode(&dir.join("journal.redb")), 0o600);
    assert_eq!(Journal::open(&dir, VolumeId(1)).unwrap_err(), JournalError::Locked);
    drop(first);
    let (_, again) = Journal::open(&dir, VolumeId(1)).unwrap();
    assert_eq!(again, state, "the identity stays");
}

#[test]
fn rights_of_others_to_the_journal_are_taken_away_at_open() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.redb");
    drop(Journal::open(place.path(), VolumeId(1)).unwrap());
    for (loose, kept) in
        [(0o644, 0o600), (0o640, 0o600), (0o4666, 0o600), (0o601, 0o600), (0o400, 0o400), (0o600, 0o600)]
    {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(loose)).unwrap();
        let opened = Journal::open(place.path(), VolumeId(1));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, kept, "{loose:o}");
        // A file that its owner may not write can not be opened, unless root does it.
        assert!(opened.is_ok() || loose & 0o200 == 0, "{loose:o}");
    }
}

#[test]
fn what_is_not_a_journal_of_ours_is_refused_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.redb");
    for content in [&b""[..], b"not a database", &[0xff; 8192]] {
        std::fs::write(&path, content).unwrap();
        let refused = Journal::open(place.path(), VolumeId(1)).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged(_)), "{} bytes: {refused}", content.len());
        assert_eq!(std::fs::read(&path).unwrap(), content, "it was touched");
    }
    std::fs::remove_file(&path).unwrap();
    // What a crash in the middle of making one leaves is no obstacle.
    std::fs::write(place.path().join("journal.new"), b"half").unwrap();
    drop(Journal::open(place.path(), VolumeId(1)).unwrap());
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");
    write.open_table(meta).unwrap().insert("format", FORMAT + 1).unwrap();
    write.commit().unwrap();
    drop(database);
    let newer = Journal::open(place.path(), VolumeId(1)).unwrap_err();
    assert_eq!(newer, JournalError::Newer { found: FORMAT + 1 });
    let both = [FORMAT, FORMAT + 1].map(|n| newer.to_string().contains(&n.to_string()));
    assert_eq!(both, [true; 2], "{newer}");
}

/// A journal says which builds can read it: those that know every record ever written to it.
#[test]
fn the_format_grows_with_the_first_record_that_needs_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.redb");
    let format = || {
        let database = redb::Database::open(&path).unwrap();
        let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");
        let read = redb::ReadableDatabase::begin_read(&database).unwrap();
        read.open_table(meta).unwrap().get("format").unwrap().unwrap().value()
    };
    let (mut journal, state) = Journal::open(place.path(), VolumeId(1)).unwrap();
    let (next, _) = state.apply(&Command::CreateTransport(Transport::default())).unwrap();
    journal.commit(&state, &next).unwrap();
    drop(journal);
    assert_eq!(format(), 1);
    let (mut journal, state) = Journal::open(place.path(), VolumeId(1)).unwrap();
    assert_eq!(state, next);
    let (next, _) = state.apply(&Command::Iscsi(Change::SetOptions(Options::default()))).unwrap();
    journal.commit(&state, &next).unwrap();
    drop(journal);
    assert_eq!(format(), 2);
    assert_eq!(Journal::open(place.path(), VolumeId(1)).unwrap().1, next);
}

/// Nodes that were set up before there was iSCSI have none.
#[test]
fn a_node_record_of_an_older_journal_is_read() {
    let (_, state) = journal(&MemFile::new(Fuse::of(u64::MAX))).unwrap();
    let Some(Record::Node(node)) = state.records().next() else { panic!("the node comes first") };
    let mut value = ciborium::Value::serialized(&node).unwrap();
    let ciborium::Value::Map(fields) = &mut value else { panic!("a record is a map") };
    fields.retain(|(name, _)| !["iscsi_generation", "targets_made"].contains(&name.as_text().unwrap()));
    assert_eq!(fields.len(), 3);
    assert_eq!(value.deserialized::<NodeRecord>().unwrap(), node);
}
