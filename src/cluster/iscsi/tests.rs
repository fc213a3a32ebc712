//! Rules of the iSCSI objects: what is refused, and what goes with what.

use super::*;

fn name(short: &str) -> IscsiName {
    Options::default().full_name(short).expect("a legal name")
}

fn portals(tag: u16, portals: &[&str]) -> Change {
    let portals = portals.iter().map(|p| p.parse().expect("an address")).collect();
    Change::CreatePortalGroup(PortalGroup { tag, portals, private: false, started: true, auth: None })
}

fn initiators(tag: u32, names: &[&str], masks: &[&str]) -> InitiatorGroup {
    let initiators = names.iter().map(|n| Initiator::new(n).expect("legal")).collect();
    let netmasks = masks.iter().map(|n| Netmask::new(n).expect("legal")).collect();
    InitiatorGroup { tag, initiators, netmasks }
}

fn map(portal_group: u16, initiator_group: u32) -> Map {
    Map { portal_group, initiator_group }
}

fn lun(lun: u16) -> Lun {
    Lun { lun, volume: VolumeId(7), store: None, bdev: "M0".into() }
}

fn target(short: &str, maps: &[Map]) -> TargetNode {
    let luns = BTreeMap::from([(0, lun(0))]);
    TargetNode { maps: maps.to_vec(), luns, ..TargetNode::new(name(short)) }
}

fn made(changes: &[Change]) -> Iscsi {
    let mut iscsi = Iscsi::default();
    for change in changes {
        iscsi.change(change).unwrap_or_else(|e| panic!("{change:?}: {e}"));
        assert!(iscsi.is_sound(), "{change:?}");
    }
    iscsi
}

fn refused(iscsi: &Iscsi, change: &Change) -> String {
    iscsi.clone().change(change).expect_err("must be refused").to_string()
}

/// Two portal groups, two initiator groups, an auth group, a target.
fn furnished() -> Iscsi {
    made(&[
        portals(1, &["10.0.0.1:3260"]),
        portals(2, &["10.0.0.2:3260", "[::1]:3260"]),
        Change::CreateInitiatorGroup(initiators(1, &["ANY"], &["ANY"])),
        Change::CreateInitiatorGroup(initiators(2, &["!iqn.a", "iqn.b"], &["10.0.0.0/8"])),
        Change::CreateAuthGroup(AuthGroup { tag: 1, secrets: vec![secret("u")] }),
        Change::CreateTarget(target("disk1", &[map(1, 1), map(2, 2)])),
    ])
}

fn secret(user: &str) -> Secret {
    Secret { user: user.into(), secret: "0123456789ab".into(), mutual: None }
}

#[test]
fn a_tag_or_name_or_portal_is_there_once() {
    let iscsi = furnished();
    for (change, why) in [
        (portals(1, &["10.0.0.9:3260"]), "portal group '1'"),
        (portals(3, &["10.0.0.2:3260"]), "portal '10.0.0.2:3260'"),
        (portals(3, &["10.0.0.3:1", "10.0.0.3:1"]), "portal '10.0.0.3:1'"),
        (portals(3, &[]), "portals must not be empty"),
        (portals(0, &["10.0.0.9:3260"]), "tag 0"),
        (Change::CreateInitiatorGroup(initiators(2, &["ANY"], &["ANY"])), "initiator group '2'"),
        (Change::CreateInitiatorGroup(initiators(3, &["ANY"], &[])), "must not be empty"),
        (Change::CreateInitiatorGroup(initiators(3, &["iqn.a", "iqn.a"], &["ANY"])), "initiator 'iqn.a'"),
        (Change::AddInitiators(2, vec![], vec![Netmask::new("10.0.0.0/8").unwrap()]), "netmask '10.0.0.0/8'"),
        (Change::RemoveInitiators(1, vec![Initiator::new("iqn.a").unwrap()], vec![]), "initiator 'iqn.a'"),
        (Change::CreateAuthGroup(AuthGroup { tag: 1, secrets: vec![] }), "auth group '1'"),
        (Change::CreateAuthGroup(AuthGroup { tag: 2, secrets: vec![secret("u"), secret("u")] }), "user 'u'"),
        (Change::RemoveSecret(1, "x".into()), "user 'x'"),
        (Change::AddSecret(9, secret("u")), "auth group '9'"),
        (Change::CreateTarget(target("DISK1", &[])), "target 'iqn.2016-06.io.spdk:DISK1'"),
        (Change::CreateTarget(target("disk2", &[map(9, 1)])), "portal group '9'"),
        (Change::CreateTarget(target("disk2", &[map(1, 9)])), "initiator group '9'"),
        (Change::CreateTarget(target("disk2", &[map(1, 1), map(1, 1)])), "map '1:1'"),
        (Change::CreateTarget(TargetNode { queue_depth: 0, ..target("disk2", &[]) }), "queue_depth 0"),
        (Change::CreateTarget(TargetNode { luns: BTreeMap::new(), ..target("disk2", &[]) }), "luns must not"),
        (Change::AddMaps(name("disk1"), vec![map(1, 1)]), "map '1:1'"),
        (Change::RemoveMaps(name("disk1"), vec![map(1, 2)]), "map '1:2'"),
        (Change::AddLun(name("disk1"), Some(0), lun(0)), "LUN '0'"),
        (Change::AddLun(name("disk1"), Some(256), lun(0)), "lun_id 256"),
        (Change::AddLun(name("disk9"), None, lun(0)), "target 'iqn.2016-06.io.spdk:disk9'"),
        (Change::RemoveLun(name("disk1"), 1), "LUN '1'"),
        (Change::StartPortalGroup(9), "portal group '9'"),
        (Change::DeleteTarget(name("disk9")), "target"),
    ] {
        let text = refused(&iscsi, &change);
        assert!(text.contains(why), "{change:?}: {text}");
    }
}

#[test]
fn what_names_a_group_goes_with_it() {
    let redirect = Redirect { addr: "10.9.9.9:3260".parse().unwrap(), permanent: false };
    let standby = Path { access: Access::Standby, preferred: false };
    let mut iscsi = furnished();
    iscsi.change(&Change::SetRedirect(name("disk1"), 2, Some(redirect))).unwrap();
    iscsi.change(&Change::SetPath(name("disk1"), 2, standby)).unwrap();
    let node = |iscsi: &Iscsi| iscsi.target("IQN.2016-06.io.spdk:disk1").unwrap().clone();
    assert_eq!((node(&iscsi).redirects.len(), node(&iscsi).paths.len()), (1, 1));
    let mut other = iscsi.clone();
    other.change(&Change::DeleteInitiatorGroup(2)).unwrap();
    assert_eq!(node(&other).maps, [map(1, 1)]);
    assert!(node(&other).redirects.is_empty() && node(&other).paths.is_empty());
    let mut other = iscsi.clone();
    other.change(&Change::DeletePortalGroup(2)).unwrap();
    assert_eq!(node(&other).maps, [map(1, 1)]);
    assert_eq!(other.addresses().count(), 1);
    let mut other = iscsi.clone();
    other.change(&Change::RemoveMaps(name("disk1"), vec![map(2, 2)])).unwrap();
    assert!(node(&other).redirects.is_empty());
    iscsi.change(&Change::SetPath(name("disk1"), 2, Path::default())).unwrap();
    assert!(node(&iscsi).paths.is_empty());
    iscsi.drop_units(|l| l.volume == VolumeId(7));
    assert!(node(&iscsi).luns.is_empty());
}

#[test]
fn redirects_lead_from_a_mapped_public_group_to_another_place() {
    let mut iscsi = furnished();
    let group = PortalGroup {
        tag: 3,
        portals: vec!["10.0.0.3:3260".parse().unwrap()],
        private: true,
        started: true,
        auth: None,
    };
    iscsi.change(&Change::CreatePortalGroup(group)).unwrap();
    iscsi.change(&Change::AddMaps(name("disk1"), vec![map(3, 1)])).unwrap();
    let to = |addr: &str| Some(Redirect { addr: addr.parse().unwrap(), permanent: true });
    for (tag, redirect, why) in [
        (3, to("10.0.0.9:3260"), "private"),
        (1, to("10.0.0.1:3260"), "itself"),
        (1, to("0.0.0.0:3260"), "reach"),
        (1, to("10.0.0.9:0"), "reach"),
        (9, to("10.0.0.9:3260"), "portal group '9'"),
    ] {
        let text = refused(&iscsi, &Change::SetRedirect(name("disk1"), tag, redirect));
        assert!(text.contains(why), "{tag} {redirect:?}: {text}");
    }
    iscsi.change(&Change::SetRedirect(name("disk1"), 1, to("10.0.0.3:3260"))).unwrap();
    iscsi.change(&Change::SetRedirect(name("disk1"), 1, None)).unwrap();
    assert!(iscsi.target(name("disk1").as_str()).unwrap().redirects.is_empty());
    iscsi.change(&Change::RemoveMaps(name("disk1"), vec![map(1, 1)])).unwrap();
    let unmapped = refused(&iscsi, &Change::SetRedirect(name("disk1"), 1, to("10.0.0.9:3260")));
    assert!(unmapped.contains("not mapped"), "{unmapped}");
}

#[test]
fn an_index_is_never_used_again() {
    let mut iscsi = furnished();
    assert_eq!(iscsi.target(name("disk1").as_str()).unwrap().index, 1);
    iscsi.change(&Change::DeleteTarget(name("disk1"))).unwrap();
    iscsi.change(&Change::CreateTarget(target("disk1", &[]))).unwrap();
    assert_eq!(iscsi.target(name("disk1").as_str()).unwrap().index, 2);
    let before = iscsi.clone();
    iscsi.change(&Change::AddLun(name("disk1"), None, lun(0))).unwrap();
    assert_eq!(iscsi.target(name("disk1").as_str()).unwrap().luns[&1], lun(1), "the first free LUN");
    assert!(!iscsi.same_objects(&before) && before.same_objects(&Iscsi { generation: 99, ..before.clone() }));
}

#[test]
fn chap_has_four_settings_and_secrets_have_rules() {
    for (disabled, required, mutual, good) in [
        (false, false, false, true),
        (true, false, false, true),
        (false, true, false, true),
        (false, true, true, true),
        (true, true, false, false),
        (true, true, true, false),
        (true, false, true, false),
        (false, false, true, false),
    ] {
        let chap = Chap { disabled, required, mutual, group: 1 };
        assert_eq!(chap.check().is_ok(), good, "{chap:?}");
    }
    let with = |secret: &str, mutual: Option<(&str, &str)>| {
        let mutual = mutual.map(|(u, s)| (u.to_owned(), s.to_owned()));
        Secret { user: "u".into(), secret: secret.into(), mutual }.check().map_err(|e| e.to_string())
    };
    let long = "x".repeat(12);
    assert_eq!(with(&long, None), Ok(()));
    assert_eq!(with(&long, Some(("m", "another-secret"))), Ok(()));
    for (bad, why) in [
        (with("eleven-byte", None), "secret must have"),
        (with(&"x".repeat(129), None), "secret must have"),
        (with(&long, Some(("m", "short"))), "msecret must have"),
        (with(&long, Some(("m", &long))), "msecret must differ"),
        (with(&long, Some(("", "another-secret"))), "muser must have"),
    ] {
        let text = bad.expect_err(why);
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let secret =
        Secret { user: "u".into(), secret: "hush-hush-hush".into(), mutual: Some(("m".into(), "hush2".into())) };
    for text in [format!("{secret:?}"), format!("{:?}", Change::AddSecret(1, secret.clone()))] {
        assert!(text.contains("\"u\"") && text.contains("\"m\"") && !text.contains("hush"), "{text}");
    }
}

#[test]
fn networks_and_names_are_read_as_operators_write_them() {
    let net = |text: &str| Netmask::new(text).map(|n| n.network()).map_err(|_| ());
    let of = |addr: &str, bits| Ok(Some((addr.parse().unwrap(), bits)));
    assert_eq!(net("ANY"), Ok(None));
    assert_eq!(net("ALL"), Ok(None));
    assert_eq!(net("10.0.0.0/8"), of("10.0.0.0", 8));
    assert_eq!(net("10.0.0.1"), of("10.0.0.1", 32));
    assert_eq!(net("[fe80::]/10"), of("fe80::", 10));
    assert_eq!(net("fe80::/128"), of("fe80::", 128));
    for bad in ["", "10.0.0.0/33", "10.0.0/8", "[fe80::/10", "fe80::/129", "*", "any", "[10.0.0.1]/8", "10.0.0.0/-1"] {
        assert_eq!(net(bad), Err(()), "{bad}");
    }
    let who = |text: &str| {
        let initiator = Initiator::new(text).expect(text);
        let (name, admits) = initiator.parts();
        (name.map(str::to_owned), admits)
    };
    assert_eq!(who("ANY"), (None, true));
    assert_eq!(who("!ALL"), (None, false));
    assert_eq!(who("iqn.a"), (Some("iqn.a".to_owned()), true));
    assert_eq!(who("!iqn.a"), (Some("iqn.a".to_owned()), false));
    for bad in ["", "!", "iqn.a b", "iqn.a\n", &"x".repeat(224)] {
        assert!(Initiator::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn short_names_get_the_base() {
    let options = Options { node_base: "iqn.2020-01.com.acme".into(), ..Options::default() };
    assert_eq!(options.full_name("d").unwrap().as_str(), "iqn.2020-01.com.acme:d");
    assert_eq!(options.full_name("iqn.2016-06.io.spdk:x").unwrap().as_str(), "iqn.2016-06.io.spdk:x");
    assert!(options.full_name("iqn.x").is_err() && options.full_name("a b").is_err());
    assert!(options.check().is_ok());
    for bad in [
        Options { node_base: "acme".into(), ..Options::default() },
        Options { max_queue_depth: 1, ..Options::default() },
        Options { first_burst_length: 511, ..Options::default() },
        Options { nop_timeout: 0, ..Options::default() },
        Options { error_recovery_level: 3, ..Options::default() },
        Options { discovery_auth: Chap { mutual: true, ..Chap::default() }, ..Options::default() },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
