//! Every example parses, the reference says the defaults, and every mistake is said with its place.

use super::*;
use crate::cluster::{Declared, MadeOf, Transport, Visibility};
use crate::reactor::Poll;
use std::path::PathBuf;

const REFERENCE: &str = include_str!("../../../config/reference.toml");
const EXAMPLES: &[(&str, &str)] = &[
    ("config/reference.toml", REFERENCE),
    ("config/dpdk.toml", include_str!("../../../config/dpdk.toml")),
    ("config/disk.toml", include_str!("../../../config/disk.toml")),
    ("config/ram.toml", include_str!("../../../config/ram.toml")),
];

fn read(text: &str) -> Result<Loaded, ConfigError> {
    parse(Path::new("p.toml"), text)
}

#[test]
fn every_example_parses_and_none_is_forgotten() {
    for (name, text) in EXAMPLES {
        match parse(Path::new(name), text) {
            Err(e) if text.contains("\n[net.dpdk]") && !cfg!(feature = "dpdk") => {
                assert_eq!(e.key, "net.dpdk", "{e}");
                assert!(e.reason.contains("cargo build --release --features dpdk"), "{e}");
            }
            parsed => drop(parsed.unwrap_or_else(|e| panic!("{e}"))),
        }
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut there: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    there.sort();
    let mut known: Vec<_> = EXAMPLES.iter().map(|(n, _)| n.trim_start_matches("config/")).collect();
    known.sort_unstable();
    assert_eq!(there, known);
}

#[test]
fn the_reference_says_the_defaults() {
    let (loaded, d) = (read(REFERENCE).unwrap(), Options::default());
    let o = loaded.options;
    assert_eq!(loaded.log, Some(Level::Info));
    assert_eq!((o.poll, o.stall_ns, o.wait_for_rpc), (d.poll, d.stall_ns, d.wait_for_rpc));
    assert_eq!((o.rpc_socket, o.rpc), (d.rpc_socket, d.rpc));
    assert_eq!((o.buffers, o.tcp, o.nvmf, o.iscsi), (d.buffers, d.tcp, d.nvmf, d.iscsi));
    assert_eq!(format!("{:?}", o.store), format!("{:?}", d.store));
    assert_eq!(o.declared, Declared { transport: Some(Transport::default()), ..Declared::default() });
}

/// Every key that is read stands in the reference, at least in a comment: the reader says which keys it knows.
#[test]
fn the_reference_names_every_key() {
    let mut sections = vec![("node", ""), ("rpc", ""), ("memory", ""), ("tcp", ""), ("nvmf", ""), ("store", "")];
    sections.extend([("transport", ""), ("iscsi", ""), ("iscsi.options", ""), ("net", "")]);
    sections.push(("net.dpdk", "port = 'net_tap0'\naddress = '10.0.0.1/24'"));
    let declared = [
        ("bdevs", "name = 'b'\ntype = 'malloc'\nsize = 4096"),
        ("bdevs", "name = 'b'\ntype = 'uring'\nfilename = '/f'"),
        ("bdevs", "name = 'b'\ntype = 'nvme'\naddress = '0000:02:00.0'"),
        ("bdevs", "name = 'b'\ntype = 'delay'\nbase = 'x'"),
        ("stores", "name = 's'\nbdev = 'b'"),
        ("volumes", "store = 's'\nname = 'v'\nsize = 4096"),
        ("iscsi.portal_groups", "tag = 1\nportals = ['10.0.0.1:3260']"),
        ("iscsi.initiator_groups", "tag = 1\ninitiators = ['ANY']\nnetmasks = ['ANY']"),
        ("iscsi.auth_groups", "tag = 1"),
        ("iscsi.targets", "name = 'd'\nluns = [{ bdev = 'b' }]"),
        ("subsystems", "nqn = 'nqn.2016-06.io.spdk:x'"),
        ("subsystems", "nqn = 'nqn.2016-06.io.spdk:x'\nnamespaces = [{ bdev = 'b', zzz = 1 }]"),
    ];
    let texts = sections.into_iter().map(|(s, body)| format!("[{s}]\nzzz = 1\n{body}"));
    let texts = texts.chain(declared.iter().map(|(s, body)| format!("[[{s}]]\nzzz = 1\n{body}")));
    let mut keys = 0;
    for text in texts {
        let refused = read(&text).expect_err(&text);
        let known = refused.reason.strip_prefix("unknown key; known here are ").expect(&refused.reason);
        for key in known.split(", ") {
            keys += 1;
            let named = [format!("{key} = "), format!("[iscsi.{key}]"), format!("[net.{key}]")]
                .iter()
                .any(|place| REFERENCE.contains(place));
            assert!(named, "'{key}' is not in config/reference.toml");
        }
    }
    assert!(keys > 80, "only {keys} keys were found");
}

#[test]
fn an_empty_file_is_the_defaults_and_values_count() {
    assert_eq!(read("").unwrap().options.declared, Declared::default());
    let o = read(
        "[node]\ncores = '0-2'\npoll = 'always'\n[rpc]\nsocket = '/tmp/s'\nbody_bytes = '2MiB'\n[nvmf]\nconnect_ms = 0x3e8\n\
         [memory]\nbuffers = [{ size = '4KiB', count = 8 }, { size = 2097152, count = 2 }]\n[store]\nfill_percent = 80",
    )
    .unwrap()
    .options;
    assert_eq!((o.cpus.as_slice(), o.poll), (&[0, 1, 2][..], Poll::Always));
    assert_eq!((o.rpc.body_bytes, o.nvmf.connect_ms, o.store.fill_percent), (2 << 20, 1000, 80));
    assert_eq!(o.buffers.classes().len(), 2);
}

#[test]
fn declared_objects_are_read() {
    let text = "
[[bdevs]]
name = 'M'
type = 'malloc'
size = '64MiB'
block_size = 512
[[bdevs]]
name = 'slow'
type = 'delay'
base = 'M'
read_us = 100
[[stores]]
name = 'lvs'
bdev = 'slow'
format = true
[[volumes]]
store = 'lvs'
name = 'vol'
size = '16MiB'
[[subsystems]]
nqn = 'nqn.2016-06.io.spdk:cnode1'
hosts = ['nqn.2016-06.io.spdk:host1']
namespaces = [{ bdev = 'lvs/vol', nsid = 3 }, { bdev = 'M', visible_to = ['nqn.2016-06.io.spdk:host1'] }]
listeners = ['127.0.0.1:4420', '[::1]:4420']
";
    let d = read(text).unwrap().options.declared;
    let MadeOf::Delay(base, times) = &d.bdevs[1].made_of else { panic!("not a delay") };
    assert_eq!((base.as_str(), times.read_avg_us, times.read_p99_us, times.write_p99_us), ("M", 100, 100, 0));
    assert_eq!((d.stores[0].format, d.volumes[0].bytes, d.volumes[0].thin), (true, 16 << 20, true));
    let s = &d.subsystems[0];
    assert_eq!((s.namespaces[0].nsid, s.listeners.len(), s.hosts.len()), (Some(3), 2, 1));
    assert!(!s.subsystem.allow_any_host, "closed unless it says so");
    assert_eq!(s.namespaces[0].visible, Visibility::All);
    assert_eq!(s.namespaces[1].visible, Visibility::Only(s.hosts.iter().cloned().collect()));
}

#[test]
fn declared_iscsi_objects_are_read() {
    let text = "
[iscsi]
login_ms = 5000
[iscsi.options]
node_base = 'iqn.2026-01.io.acme'
discovery_chap = 'required'
discovery_chap_group = 7
[[iscsi.portal_groups]]
tag = 1
portals = ['127.0.0.1:3260', '[::1]:3260']
[[iscsi.initiator_groups]]
tag = 2
initiators = ['!iqn.a', 'ANY']
netmasks = ['127.0.0.0/8']
[[iscsi.auth_groups]]
tag = 7
secrets = [{ user = 'u', secret = 'twelve-or-more', muser = 'm', msecret = 'another-twelve' }]
[[iscsi.targets]]
name = 'disk1'
maps = ['1:2']
luns = [{ bdev = 'M' }, { bdev = 'N', lun = 5 }]
chap = 'mutual'
chap_group = 7
";
    let o = read(text).unwrap().options;
    assert_eq!(o.iscsi.login_ms, 5000);
    let d = o.declared.iscsi;
    let options = d.options.unwrap();
    assert_eq!((options.node_base.as_str(), options.discovery_auth.group), ("iqn.2026-01.io.acme", 7));
    assert!(options.discovery_auth.required && !options.discovery_auth.mutual);
    assert_eq!((d.portal_groups[0].portals.len(), d.portal_groups[0].started), (2, true));
    assert_eq!(d.initiator_groups[0].initiators[0].parts(), (Some("iqn.a"), false));
    assert_eq!(d.auth_groups[0].secrets[0].mutual.as_ref().unwrap().1, "another-twelve");
    let target = &d.targets[0];
    assert_eq!((target.maps[0].portal_group, target.maps[0].initiator_group), (1, 2));
    assert_eq!(target.luns.iter().map(|l| l.lun).collect::<Vec<_>>(), [None, Some(5)]);
    assert!(target.auth.mutual && target.auth.required && target.auth.group == 7);
}

#[test]
fn mistakes_are_said_with_file_line_column_key_and_reason() {
    for (text, wanted) in [
        ("[node]\ncorse = '0'", "p.toml:2:1: node.corse: unknown key; known here are cores, poll,"),
        ("[nodes]\n", "p.toml:1:2: nodes: unknown key; known here are node, rpc,"),
        ("[node]\ncores = 5", "p.toml:2:9: node.cores: must be a string, not an integer"),
        ("[node]\ncores = '0-x'", "p.toml:2:9: node.cores: '0-x' is neither a CPU number nor a range"),
        ("[node]\npoll = 'never'", "p.toml:2:8: node.poll: must be one of adaptive, always, not 'never'"),
        ("[node]\nlog = 'loud'", "p.toml:2:7: node.log: must be one of error, warning,"),
        ("[rpc]\nclients = 0", "p.toml:2:11: rpc.clients: must be 1 to 1024, not 0"),
        ("[rpc]\nclients = -1", "p.toml:2:11: rpc.clients: must be 1 to 1024, not -1"),
        ("[rpc]\nclients = 99999999999999999999", "p.toml:2:11: rpc.clients: must be 1 to 1024"),
        ("[rpc]\n\nbody_bytes = '1MB'", "p.toml:3:14: rpc.body_bytes: must be a number of bytes or a size like"),
        ("[rpc]\nsocket = ''", "p.toml:2:10: rpc.socket: is empty"),
        ("[nvmf]\nheader_digest = 1", "p.toml:2:17: nvmf.header_digest: must be true or false, not an integer"),
        (
            "[nvmf]\nkeep_alive_min_ms = 90000\nkeep_alive_max_ms = 1000",
            "p.toml:2:21: nvmf.keep_alive_min_ms: must not",
        ),
        ("[store]\nsegment_bytes = 100000", "p.toml:2:17: store.segment_bytes: must be a power of two"),
        ("[memory]\nbuffers = [{ size = 4096, count = 1 }]", "p.toml:2:11: memory.buffers: the largest buffers hold"),
        ("[memory]\nbuffers = [{ size = 4096 }]", "p.toml:2:12: memory.buffers[0].count: is missing"),
        ("node = 1", "p.toml:1:8: node: must be a table, not an integer"),
        ("[[bdevs]]\ntype = 'malloc'", "p.toml:1:1: bdevs[0].name: is missing"),
        ("[[bdevs]]\nname = 'a/b'\ntype = 'malloc'", "p.toml:2:8: bdevs[0].name: bdev name 'a/b' contains '/'"),
        ("[[bdevs]]\nname = 'a'\ntype = 'floppy'", "p.toml:3:8: bdevs[0].type: must be one of malloc,"),
        ("[[bdevs]]\nname = 'a'\ntype = 'uring'", "p.toml:1:1: bdevs[0].filename: is missing"),
        ("[[bdevs]]\nname = 'a'\ntype = 'malloc'\nsize = 5000", "p.toml:4:8: bdevs[0].size: must be a multiple of"),
        ("[[bdevs]]\nname='a'\ntype='null'\nsize=8192\nbase='b'", "p.toml:5:1: bdevs[0].base: unknown key"),
        ("[[volumes]]\nstore='s'\nname='v'\nsize='1KiB'", "p.toml:4:6: volumes[0].size: must be 4096 to"),
        ("[[subsystems]]\nnqn = 'x'", "p.toml:2:7: subsystems[0].nqn: NQN 'x' does not begin with 'nqn.'"),
        (
            "[[subsystems]]\nnqn = 'nqn.2016-06.io.spdk:x'\nlisteners = ['localhost:1']",
            "p.toml:3:14: subsystems[0].listeners[0]: must be ADDRESS:PORT",
        ),
        (
            "[[subsystems]]\nnqn = 'nqn.2016-06.io.spdk:x'\nnamespaces = [{ nsid = 1 }]",
            "p.toml:3:15: subsystems[0].namespaces[0].bdev: is missing",
        ),
        ("[transport]\nmax_io_size = 12288", "p.toml:2:15: transport.max_io_size: must be a power of two"),
        ("[iscsi]\nlogin = 1", "p.toml:2:1: iscsi.login: unknown key; known here are connections,"),
        ("[[iscsi.portal_groups]]\ntag = 0", "p.toml:2:7: iscsi.portal_groups[0].tag: must be 1 to 65535"),
        ("[[iscsi.portal_groups]]\ntag = 1", "p.toml:1:1: iscsi.portal_groups[0].portals: is missing"),
        (
            "[[iscsi.auth_groups]]\ntag = 1\nsecrets = [{ user = 'u', secret = 'short' }]",
            "p.toml:3:35: iscsi.auth_groups[0].secrets[0].secret: secret must have 12 to 128 bytes",
        ),
        (
            "[[iscsi.targets]]\nname = 'd'\nluns = [{ bdev = 'b' }]\nmaps = ['1']",
            "p.toml:4:9: iscsi.targets[0].maps[0]: must be the tags of a portal and an initiator group",
        ),
        (
            "[[iscsi.targets]]\nname = 'iqn.x'\nluns = [{ bdev = 'b' }]",
            "p.toml:2:8: iscsi.targets[0].name: iSCSI name 'iqn.x' has no date",
        ),
        ("[net]\nx = 1", "p.toml:2:1: net.x: unknown key; known here are dpdk"),
        ("[net.dpdk]\nporrt = 'x'", "p.toml:1:1: net.dpdk.port: is missing"),
        ("[net.dpdk]\nport = 'eth0'", "p.toml:2:8: net.dpdk.port: must be a PCI address like"),
        ("[net.dpdk]\nport = 'net_tap0'", "p.toml:1:1: net.dpdk.address: is missing"),
        ("[net.dpdk]\naddress = 5", "p.toml:2:11: net.dpdk.address: must be a string or an array of strings, not an"),
        ("[net.dpdk]\naddress = ['10.0.0.1']", "p.toml:2:12: net.dpdk.address[0]: must be ADDRESS/BITS"),
        ("[net.dpdk]\nmtu = 9001", "p.toml:2:7: net.dpdk.mtu: must be 1280 to 9000, not 9001"),
        (
            "[net.dpdk]\nport = 'net_tap0'\naddress = '10.0.0.1/24'\ngateway = '10.0.1.1'",
            "p.toml:4:11: net.dpdk.gateway: 10.0.1.1 is not on the link of any address",
        ),
        (
            "[net.dpdk]\nport = 'net_tap0'\naddress = '10.0.0.1/24'\nlanes = 4",
            "p.toml:4:1: net.dpdk.lanes: unknown key; known here are port, address,",
        ),
        ("[node\n", "p.toml:1:6: "),
        ("a = 1\na = 2", "p.toml:2:1: "),
        ("é = [", "p.toml:1:"),
    ] {
        let said = read(text).expect_err(text).to_string();
        assert!(said.starts_with(wanted), "{text:?}:\n  {said}\nnot\n  {wanted}");
    }
    let missing = load(Path::new("/nonexistent/p.toml")).unwrap_err();
    assert!(missing.starts_with("/nonexistent/p.toml: No such file"), "{missing}");
}

/// Damaged examples are refused or read, never a panic.
#[test]
fn any_damage_is_an_error_or_a_configuration() {
    let mut rng = crate::base::rng::Rng::new(3);
    let mut refused = 0;
    for turn in 0..20_000 {
        let mut text = EXAMPLES[turn % EXAMPLES.len()].1.as_bytes().to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(text.len() as u64) as usize;
            match rng.below(3) {
                0 => text[at] = b"\"'[]{}=.\n#09aZ "[rng.below(15) as usize],
                1 if text.len() > 8 => drop(text.remove(at)),
                _ => text.truncate(at.max(8)),
            }
        }
        refused += u64::from(read(&String::from_utf8_lossy(&text)).is_err());
    }
    assert!(refused > 2000, "only {refused} were refused");
}
