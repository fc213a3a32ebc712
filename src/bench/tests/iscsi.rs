//! The load generator against the iSCSI target, over TCP.

use super::*;
use crate::auth::chap::Algorithm;
use crate::iscsi::lu::{Access, Device, Group, Unit};
use crate::iscsi::{
    Auth, AuthGroup, Config, InitiatorGroup, Netmask, Options as TargetOptions, Pattern, PortalGroup, Secret, Snapshot,
    Target, TargetNode,
};

const IQN: &str = "iqn.2024-01.io.pollux:load";
const PLAIN: &str = "iscsi://127.0.0.1:{port}/iqn.2024-01.io.pollux:load/0";
const SECURED: &str = "iscsi://user%the%user's@secret@127.0.0.1:{port}/iqn.2024-01.io.pollux:load/0";
const WRONG: &str = "iscsi://user%wrong%secret@127.0.0.1:{port}/iqn.2024-01.io.pollux:load/0";

fn open(volumes: Memory, port: u16, stop: &AtomicBool, tell: &std::sync::mpsc::Sender<u16>) {
    serve(volumes, Auth::default(), port, stop, tell);
}

fn secured(volumes: Memory, port: u16, stop: &AtomicBool, tell: &std::sync::mpsc::Sender<u16>) {
    serve(volumes, Auth { disabled: false, required: true, mutual: true, group: 1 }, port, stop, tell);
}

fn serve(mut volumes: Memory, auth: Auth, port: u16, stop: &AtomicBool, tell: &std::sync::mpsc::Sender<u16>) {
    let mut net = Tcp::new(TcpConfig { conns_max: 64, ..TcpConfig::default() }).unwrap();
    let (listener, addr) = net.listen(([127, 0, 0, 1], port).into(), false).unwrap();
    let config = Config { unauthenticated_per_address: 64, ..Config::default() };
    let mut target = Target::new(CoreId(0), 1, &config, [5; 32]);
    target.listen(listener, addr);
    let groups = vec![Group { id: 1, access: Access::ActiveOptimized, preferred: false, ports: vec![1] }];
    let unit = Unit {
        lun: 0,
        info: volumes.info.clone(),
        vendor: "Pollux".into(),
        product: "Volume".into(),
        revision: "0001".into(),
        serial: "SN1".into(),
        physical_block: 4096,
        threshold_percent: 0,
        device: Arc::new(Device::new(IQN.into(), groups)),
    };
    let node = TargetNode {
        name: IQN.into(),
        alias: "load".into(),
        index: 1,
        maps: vec![(1, 1)],
        luns: vec![unit],
        queue_depth: 32,
        auth,
        header_digest: false,
        data_digest: false,
        redirects: Vec::new(),
    };
    let mutual = Some(("target".into(), b"the target's secret".to_vec()));
    let secret = Secret { user: "user".into(), secret: b"the%user's@secret".to_vec(), mutual };
    target.configure(Arc::new(Snapshot {
        generation: 1,
        options: Some(TargetOptions::default()),
        portal_groups: vec![PortalGroup { tag: 1, private: false, portals: vec![addr], discovery_auth: None }],
        initiator_groups: vec![InitiatorGroup { tag: 1, initiators: vec![Pattern::Any], netmasks: vec![Netmask::Any] }],
        auth_groups: vec![AuthGroup { tag: 1, secrets: vec![secret] }],
        targets: vec![node],
    }));
    let classes =
        [Class { size: 4096, count: 512 }, Class { size: 1 << 17, count: 128 }, Class { size: 1 << 20, count: 16 }];
    let mut pool = Pool::standalone(CoreId(0), &classes).unwrap();
    tell.send(addr.port()).unwrap();
    let clock = Clock::start();
    let mut idle = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let now: Time = clock.now();
        let events = net.poll(now, &mut pool, &mut target.join(now, &mut volumes));
        for order in target.to_control().collect::<Vec<_>>() {
            target.reserved(now, order.token, Ok(()), &mut net, &mut volumes, &mut pool);
        }
        target.tick(now, &mut net, &mut volumes, &mut pool);
        net.flush(now, &mut pool);
        idle = if events == 0 { idle + 1 } else { 0 };
        // Cores are few where tests run.
        if idle > 100 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn verified_load_over_iscsi_in_every_shape() {
    for (block_size, block_bytes, conns, header_digest, data_digest) in [
        (4096, 4096, 1, false, false),
        (512, 512, 2, true, true),
        (4096, 16384, 3, false, true),
        // Beyond the first burst: by R2T.
        (512, 131_072, 2, false, false),
    ] {
        let server = Server::of((PLAIN, open), &memory(), block_size, Vice::None, 0);
        let o = verifying(&server, Verify::default());
        let o = Options { block_bytes, conns, header_digest, data_digest, count: Some(600), flush_every: 50, ..o };
        let (report, ending) = run(&o).unwrap();
        assert_eq!((ending, report.errors, report.verify_errors), (Ending::Whole, 0, 0), "{block_bytes}: {report:?}");
        assert_eq!((report.ops, report.setting.connections), (600, u32::from(conns)));
        let v = report.verify.unwrap();
        assert!(v.checked > 0 && v.read_back > 0);
        assert!(server.served.load(Ordering::Relaxed) >= 600);
    }
}

#[test]
fn both_sides_prove_themselves() {
    for algorithms in [vec![], vec![Algorithm::Md5], vec![Algorithm::Sha1, Algorithm::Sha256]] {
        let mut server = Server::of((SECURED, secured), &memory(), 4096, Vice::None, 0);
        let chap_target = Some(("target".to_owned(), "the target's secret".to_owned()));
        let o = verifying(&server, Verify::default());
        let o = Options { chap_target, chap_algorithms: algorithms, count: Some(50), ..o };
        let (report, ending) = run(&o).unwrap();
        assert_eq!((ending, report.ops, report.verify_errors), (Ending::Whole, 50, 0));
        let liar = Options { chap_target: Some(("target".into(), "not the secret".into())), ..o.clone() };
        assert!(run(&liar).unwrap_err().to_string().contains("CHAP authentication failed"));
        let one_way = Options { chap_target: None, ..o.clone() };
        assert!(run(&one_way).unwrap_err().to_string().contains("AuthenticationFailed"));
        server.url = WRONG;
        assert!(run(&Options { source: server.url(), ..o }).unwrap_err().to_string().contains("AuthenticationFailed"));
    }
}

#[test]
fn damage_behind_iscsi_ends_with_its_own_codes() {
    let server = Server::of((PLAIN, open), &memory(), 4096, Vice::Forget, 0);
    let (report, ending) = run(&verifying(&server, Verify::default())).unwrap();
    assert_eq!(ending, Ending::VerifyErrors);
    let kinds: Vec<String> = report.verify.unwrap().kinds.into_keys().collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|k| k == "lost" || k == "stale"), "{kinds:?}");
    let server = Server::of((PLAIN, open), &memory(), 4096, Vice::Fail, 0);
    let (report, ending) = run(&verifying(&server, Verify::default())).unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::IoErrors, 0));
    assert_eq!(report.error_kinds["MediaError"], report.errors);
}
