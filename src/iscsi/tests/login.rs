//! Logins: stages, keys, names, rights, CHAP, redirection, and everything that ends one.

use super::rig::{Got, HOST, NAME, Rig, TAG, names};
use crate::auth::chap::{Algorithm, CHALLENGE_LEN};
use crate::iscsi::{Auth, AuthGroup, Netmask, Pattern, Redirect, Secret};
use crate::wire::iscsi::pdu::{FINAL, LoginRequest, LoginResponse, NopOut, ScsiCommand, TRANSIT, TextRequest};
use crate::wire::iscsi::value::binary;
use crate::wire::iscsi::{Digests, LoginStatus, Lun, NO_TAG, Opcode, Stage};
use std::fmt::Write;

const OPERATIONAL: Stage = Stage::Operational;
const FULL: Stage = Stage::FullFeature;

fn request(current: Stage, next: Option<Stage>) -> LoginRequest {
    LoginRequest::new([7; 6], 1, current, next, 0)
}

/// One login of one request; its status.
fn status(rig: &mut Rig, request: &LoginRequest, text: &str) -> LoginStatus {
    let conn = rig.dial(0);
    let (response, _) = rig.ask(conn, request, text).expect("an answer");
    let status = response.status().unwrap();
    if status != LoginStatus::Success {
        rig.turns(10);
        assert!(rig.closed(conn), "a failed login ends its connection");
    }
    rig.hang_up(conn);
    status
}

#[test]
fn every_key_is_answered_and_declarations_are_made_once() {
    let mut rig = Rig::plain();
    let conn = rig.dial(0);
    let text = format!("{}AuthMethod=CHAP,None\0InitiatorAlias=me\0", names(HOST, NAME));
    let (response, got) = rig.ask(conn, &request(Stage::Security, Some(OPERATIONAL)), &text).unwrap();
    assert_eq!(
        (response.current(), response.next(), response.transit()),
        (Some(Stage::Security), Some(OPERATIONAL), true)
    );
    assert_eq!(got.key("AuthMethod").as_deref(), Some("None"));
    assert_eq!((got.key("TargetPortalGroupTag").unwrap(), got.key("TargetAlias").unwrap()), ("1".into(), "one".into()));
    assert_eq!(got.key("MaxRecvDataSegmentLength"), None);
    let keys = "HeaderDigest=CRC32C,None\0DataDigest=None\0MaxConnections=4\0InitialR2T=No\0ImmediateData=Yes\0\
                MaxBurstLength=16776192\0FirstBurstLength=262144\0MaxOutstandingR2T=8\0DefaultTime2Wait=2\0\
                DefaultTime2Retain=20\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=2\0\
                MaxRecvDataSegmentLength=262144\0IFMarker=No\0iSCSIProtocolLevel=1\0X-com.example=1\0Strange=2\0";
    let (response, got) = rig.ask(conn, &request(OPERATIONAL, Some(FULL)), keys).unwrap();
    assert_eq!(
        (response.status(), response.next(), response.transit()),
        (Some(LoginStatus::Success), Some(FULL), true)
    );
    assert_ne!(response.tsih.get(), 0);
    for (key, value) in [
        ("HeaderDigest", "CRC32C"),
        ("DataDigest", "None"),
        ("MaxConnections", "2"),
        ("InitialR2T", "No"),
        ("ImmediateData", "Yes"),
        ("MaxBurstLength", "1048576"),
        ("FirstBurstLength", "65536"),
        ("MaxOutstandingR2T", "4"),
        ("DefaultTime2Wait", "2"),
        ("DefaultTime2Retain", "0"),
        ("DataPDUInOrder", "Yes"),
        ("DataSequenceInOrder", "Yes"),
        ("ErrorRecoveryLevel", "0"),
        ("MaxRecvDataSegmentLength", "262144"),
        ("IFMarker", "No"),
        ("iSCSIProtocolLevel", "1"),
        ("X-com.example", "NotUnderstood"),
        ("Strange", "NotUnderstood"),
    ] {
        assert_eq!(got.key(key).as_deref(), Some(value), "{key}");
    }
    assert!(got.key("TargetPortalGroupTag").is_none() && got.key("SessionType").is_none());
    let session = rig.cores[0].target.sessions().next().unwrap();
    assert_eq!((session.initiator.as_str(), session.alias.as_str()), (HOST, "me"));
    assert_eq!((session.target.as_deref(), session.window, session.bursts), (Some(NAME), 32, (65536, 1 << 20)));
    rig.finish();
}

#[test]
fn every_refusal_has_its_status() {
    let mut rig = Rig::plain();
    let to_full = request(OPERATIONAL, Some(FULL));
    let all = names(HOST, NAME);
    let mut expect = |request: &LoginRequest, text: &str, want: LoginStatus| {
        assert_eq!(status(&mut rig, request, text), want, "{text}");
    };
    expect(&to_full, &format!("TargetName={NAME}\0"), LoginStatus::MissingParameter);
    expect(&to_full, &format!("InitiatorName={HOST}\0"), LoginStatus::MissingParameter);
    expect(&to_full, "", LoginStatus::MissingParameter);
    expect(&to_full, &format!("InitiatorName={HOST}\0SessionType=Strange\0"), LoginStatus::SessionType);
    expect(&to_full, &names(HOST, "iqn.2024-01.io.pollux:none"), LoginStatus::NotFound);
    expect(&to_full, &names("iqn.2024-01.io.pollux:stranger", NAME), LoginStatus::AuthorizationFailed);
    expect(&to_full, &names("host", NAME), LoginStatus::InitiatorError);
    expect(&to_full, &format!("{all}InitiatorName={HOST}\0"), LoginStatus::InitiatorError);
    expect(&to_full, &format!("{all}MaxBurstLength=512\0MaxBurstLength=512\0"), LoginStatus::InitiatorError);
    expect(&to_full, &format!("{all}no equals\0"), LoginStatus::InitiatorError);
    expect(&to_full, &format!("{all}no=end"), LoginStatus::InitiatorError);
    expect(&to_full, &format!("{all}{}=1\0", "k".repeat(64)), LoginStatus::InitiatorError);
    // Answers that would not fit.
    expect(&to_full, &format!("{all}{}", "z=\0".repeat(900)), LoginStatus::InitiatorError);
    let mut bent = to_full;
    bent.version_min = 1;
    expect(&bent, &all, LoginStatus::Version);
    // C and T together, a stage that does not exist, one that leads nowhere or back.
    for flags in [TRANSIT | 0x40 | 4 | 3, 8, 12, TRANSIT | 4, TRANSIT | 4 | 1, TRANSIT | 2, TRANSIT | 4 | 2] {
        bent = LoginRequest { flags, ..to_full };
        expect(&bent, &all, LoginStatus::InitiatorError);
    }
    bent = to_full;
    bent.tsih.set(77);
    expect(&bent, &all, LoginStatus::NoSession);
    // Operational keys have no place in the security stage.
    let secure = request(Stage::Security, Some(OPERATIONAL));
    expect(&secure, &format!("{all}MaxBurstLength=512\0"), LoginStatus::InitiatorError);
    expect(&secure, &format!("{all}AuthMethod=KRB5\0"), LoginStatus::AuthenticationFailed);
    expect(&secure, &format!("{all}AuthMethod=CHAP\0"), LoginStatus::AuthenticationFailed);
    assert_eq!(rig.cores[0].target.stats().login_failures, 25);
    rig.finish();
}

#[test]
fn later_requests_must_go_on_where_the_first_began() {
    let first = request(OPERATIONAL, None);
    let full = request(OPERATIONAL, Some(FULL));
    let bends: [fn(&mut LoginRequest); 5] =
        [|r| r.itt.set(9), |r| r.isid[5] ^= 1, |r| r.cid.set(9), |r| r.tsih.set(9), |r| r.flags = TRANSIT | 1];
    for bend in bends {
        let mut rig = Rig::plain();
        let conn = rig.dial(0);
        assert_eq!(rig.ask(conn, &first, &names(HOST, NAME)).unwrap().0.status(), Some(LoginStatus::Success));
        let mut second = full;
        bend(&mut second);
        assert_eq!(rig.ask(conn, &second, "").unwrap().0.status(), Some(LoginStatus::InitiatorError));
        rig.finish();
    }
    // Another PDU than a login, before and after it has begun.
    let mut rig = Rig::plain();
    let nop = NopOut::new(Lun::of(0), 1, NO_TAG, 0);
    let conn = rig.dial(0);
    rig.send(conn, zerocopy::IntoBytes::as_bytes(&nop));
    assert!(rig.recv_within(conn, Digests::NONE, 20).is_none() && rig.closed(conn));
    let conn = rig.dial(0);
    rig.ask(conn, &first, &names(HOST, NAME)).unwrap();
    rig.send(conn, zerocopy::IntoBytes::as_bytes(&nop));
    let got = rig.recv_within(conn, Digests::NONE, 20).unwrap();
    assert_eq!(got.header::<LoginResponse>().status(), Some(LoginStatus::InvalidRequest));
    rig.finish();
}

#[test]
fn a_text_over_several_requests_is_one_and_has_an_end() {
    let mut rig = Rig::plain();
    let conn = rig.dial(0);
    let text = format!("{}MaxBurstLength=4096\0", names(HOST, NAME));
    let mut part = request(OPERATIONAL, None);
    part.flags |= 0x40;
    for at in [0, 30, 60] {
        let (response, got) = rig.ask(conn, &part, &text[at..at + 30]).unwrap();
        assert_eq!((response.status(), response.transit(), got.data.len()), (Some(LoginStatus::Success), false, 0));
    }
    let (response, got) = rig.ask(conn, &request(OPERATIONAL, Some(FULL)), &text[90..]).unwrap();
    assert_eq!((response.next(), got.key("MaxBurstLength").as_deref()), (Some(FULL), Some("4096")));
    // Endless: cut by the text's limit, and by the number of requests.
    for (size, most) in [(3000, 3), (1, 17)] {
        let conn = rig.dial(0);
        let mut asked = 0;
        loop {
            asked += 1;
            let (response, _) = rig.ask(conn, &part, &"a".repeat(size)).unwrap();
            if response.status() != Some(LoginStatus::Success) {
                assert_eq!((response.status(), asked), (Some(LoginStatus::InitiatorError), most));
                break;
            }
        }
    }
    rig.finish();
}

#[test]
fn rights_are_of_names_and_networks_and_the_first_match_decides() {
    let mut rig = Rig::plain();
    let to_full = request(OPERATIONAL, Some(FULL));
    let mut with = |initiators: Vec<Pattern>, netmasks: Vec<Netmask>, want: LoginStatus| {
        let group = &mut rig.snapshot.initiator_groups[0];
        (group.initiators, group.netmasks) = (initiators, netmasks);
        rig.configure();
        assert_eq!(status(&mut rig, &to_full, &names(HOST, NAME)), want);
    };
    let net = |s: &str, bits| vec![Netmask::Net { addr: s.parse().unwrap(), bits }];
    let (yes, no) = (LoginStatus::Success, LoginStatus::AuthorizationFailed);
    with(vec![Pattern::Any], vec![Netmask::Any], yes);
    with(vec![Pattern::Any], vec![], no);
    with(vec![], vec![Netmask::Any], no);
    with(vec![Pattern::Not(HOST.into()), Pattern::Any], vec![Netmask::Any], no);
    with(vec![Pattern::Name(HOST.to_uppercase().replace("IQN", "iqn"))], net("10.0.0.0", 24), yes);
    with(vec![Pattern::Any], net("10.1.0.0", 16), no);
    // No map for the portal group: as if the target were not there.
    rig.snapshot.targets[0].maps = vec![(2, 1)];
    rig.configure();
    assert_eq!(status(&mut rig, &to_full, &names(HOST, NAME)), LoginStatus::NotFound);
    rig.finish();
}

#[test]
fn logins_are_sent_elsewhere() {
    for (permanent, want) in [(false, LoginStatus::MovedTemporarily), (true, LoginStatus::MovedPermanently)] {
        let mut rig = Rig::plain();
        let addr = "10.0.0.9:3261".parse().unwrap();
        rig.snapshot.targets[0].redirects = vec![Redirect { portal_group: TAG, addr, permanent }];
        rig.configure();
        let conn = rig.dial(0);
        let (response, got) = rig.ask(conn, &request(OPERATIONAL, Some(FULL)), &names(HOST, NAME)).unwrap();
        assert_eq!((response.status(), got.key("TargetAddress").as_deref()), (Some(want), Some("10.0.0.9:3261")));
        rig.turns(10);
        assert!(rig.closed(conn));
        // Who may not use the target does not learn where it is.
        let stranger = names("iqn.2024-01.io.pollux:stranger", NAME);
        assert_eq!(status(&mut rig, &request(OPERATIONAL, Some(FULL)), &stranger), LoginStatus::AuthorizationFailed);
        assert_eq!(rig.cores[0].target.stats().redirections, 1);
        rig.finish();
    }
}

#[test]
fn digests_that_the_target_insists_on_are_not_optional() {
    let mut rig = Rig::plain();
    rig.snapshot.targets[0].header_digest = true;
    rig.configure();
    let to_full = request(OPERATIONAL, Some(FULL));
    for (keys, want) in [
        ("", LoginStatus::MissingParameter),
        ("HeaderDigest=None\0", LoginStatus::MissingParameter),
        ("HeaderDigest=None,CRC32C\0", LoginStatus::Success),
    ] {
        assert_eq!(status(&mut rig, &to_full, &format!("{}{keys}", names(HOST, NAME))), want);
    }
    rig.finish();
}

const SECRET: &[u8] = b"a secret of the host";
const OWN: &[u8] = b"a secret of the target";

fn with_chap(required: bool, mutual: bool) -> Rig {
    let mut rig = Rig::plain();
    let own = Some(("target".to_owned(), OWN.to_vec()));
    let secrets = vec![Secret { user: "0xhost".into(), secret: SECRET.to_vec(), mutual: own }];
    rig.snapshot.auth_groups = vec![AuthGroup { tag: 5, secrets }];
    let auth = Auth { disabled: false, required, mutual, group: 5 };
    rig.snapshot.targets[0].auth = auth;
    rig.snapshot.options.as_mut().unwrap().discovery_auth = auth;
    rig.configure();
    rig
}

/// What an initiator says to a challenge.
#[derive(Clone, Copy)]
struct Say<'a> {
    methods: &'a str,
    algorithms: &'a str,
    name: &'a str,
    secret: &'a [u8],
    /// The challenge for the target; `Some(true)`: its own.
    back: Option<bool>,
}

const GOOD: Say<'static> = Say { methods: "CHAP,None", algorithms: "5", name: "0xhost", secret: SECRET, back: None };

/// A login with CHAP as far as it goes: the last response.
fn prove(rig: &mut Rig, say: &Say<'_>, kind: &str) -> (LoginStatus, Got) {
    let conn = rig.dial(0);
    let text = format!("InitiatorName={HOST}\0{kind}AuthMethod={}\0", say.methods);
    let secure = request(Stage::Security, Some(OPERATIONAL));
    let (response, got) = rig.ask(conn, &secure, &text).unwrap();
    if response.status() != Some(LoginStatus::Success) || got.key("AuthMethod").as_deref() != Some("CHAP") {
        return (response.status().unwrap(), got);
    }
    assert!(!response.transit(), "nothing is proved yet");
    let (response, got) = rig.ask(conn, &secure, &format!("CHAP_A={}\0", say.algorithms)).unwrap();
    if response.status() != Some(LoginStatus::Success) {
        return (response.status().unwrap(), got);
    }
    assert!(!response.transit());
    let algorithm = Algorithm::of(got.key("CHAP_A").unwrap().parse().unwrap()).unwrap();
    let id: u8 = got.key("CHAP_I").unwrap().parse().unwrap();
    let theirs = got.key("CHAP_C").unwrap();
    let mut challenge = [0; CHALLENGE_LEN];
    assert_eq!(binary(&theirs, &mut challenge), Some(CHALLENGE_LEN));
    let hex = |bytes: &[u8]| {
        let mut text = String::new();
        for b in bytes {
            write!(text, "{b:02x}").unwrap();
        }
        text
    };
    let digest = algorithm.response(id, say.secret, &challenge);
    let mut text = format!("CHAP_N={}\0CHAP_R=0x{}\0", say.name, hex(digest.bytes()));
    match say.back {
        None => {}
        Some(true) => write!(text, "CHAP_I=7\0CHAP_C={theirs}\0").unwrap(),
        Some(false) => text += "CHAP_I=7\0CHAP_C=0x000102030405060708090a0b0c0d0e0f\0",
    }
    let (response, got) = rig.ask(conn, &secure, &text).unwrap();
    if response.status() == Some(LoginStatus::Success) {
        assert!(response.transit());
        if say.back.is_some() {
            let own: Vec<u8> = (0..16).collect();
            let want = format!("0x{}", hex(algorithm.response(7, OWN, &own).bytes()));
            assert_eq!((got.key("CHAP_N").as_deref(), got.key("CHAP_R")), (Some("target"), Some(want)));
        }
        let (response, got) = rig.ask(conn, &request(OPERATIONAL, Some(FULL)), "").unwrap();
        assert_eq!(response.next(), Some(FULL));
        rig.hang_up(conn);
        return (response.status().unwrap(), got);
    }
    rig.turns(10);
    assert!(rig.closed(conn));
    (response.status().unwrap(), got)
}

#[test]
fn chap_lets_in_who_knows_the_secret_and_nobody_else() {
    let target = format!("TargetName={NAME}\0");
    for kind in [target.as_str(), "SessionType=Discovery\0"] {
        let mut rig = with_chap(true, false);
        let (yes, no) = (LoginStatus::Success, LoginStatus::AuthenticationFailed);
        let mut expect = |say: Say<'_>, want| assert_eq!(prove(&mut rig, &say, kind).0, want);
        for algorithms in ["5", "7", "8", "6,5", "99,5,6,7,8"] {
            expect(Say { algorithms, ..GOOD }, yes);
        }
        expect(Say { back: Some(false), ..GOOD }, yes);
        expect(Say { secret: b"another secret", ..GOOD }, no);
        expect(Say { name: "host", ..GOOD }, no);
        expect(Say { name: "", ..GOOD }, no);
        expect(Say { algorithms: "56", ..GOOD }, no);
        expect(Say { algorithms: "", ..GOOD }, no);
        expect(Say { back: Some(true), ..GOOD }, no);
        expect(Say { methods: "None", ..GOOD }, no);
        expect(Say { methods: "", ..GOOD }, no);
        // Straight to another stage.
        let text = format!("InitiatorName={HOST}\0{kind}");
        assert_eq!(status(&mut rig, &request(OPERATIONAL, Some(FULL)), &text), no);
        assert_eq!(status(&mut rig, &request(Stage::Security, Some(FULL)), &text), no);
        rig.snapshot.options.as_mut().unwrap().chap_algorithms = vec![7, 8];
        rig.configure();
        assert_eq!(prove(&mut rig, &GOOD, kind).0, no, "MD5 is not taken any more");
        rig.finish();
    }
}

#[test]
fn chap_may_be_optional_disabled_or_mutual() {
    let kind = format!("TargetName={NAME}\0");
    let none = Say { methods: "None", ..GOOD };
    let mut rig = with_chap(false, false);
    assert_eq!(prove(&mut rig, &GOOD, &kind).0, LoginStatus::Success);
    assert_eq!(prove(&mut rig, &none, &kind).0, LoginStatus::Success);
    assert_eq!(prove(&mut rig, &Say { secret: b"wrong", ..GOOD }, &kind).0, LoginStatus::AuthenticationFailed);
    rig.snapshot.targets[0].auth.disabled = true;
    rig.configure();
    let (_, got) = prove(&mut rig, &GOOD, &kind);
    assert_eq!(got.key("AuthMethod").as_deref(), Some("None"));
    rig.finish();
    let mut rig = with_chap(true, true);
    assert_eq!(prove(&mut rig, &GOOD, &kind).0, LoginStatus::AuthenticationFailed, "it must ask for proof");
    assert_eq!(prove(&mut rig, &Say { back: Some(false), ..GOOD }, &kind).0, LoginStatus::Success);
    rig.finish();
}

#[test]
fn keys_of_chap_out_of_order_end_the_login() {
    let texts = [
        vec!["CHAP_A=5\0"],
        vec!["AuthMethod=CHAP\0CHAP_A=5\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_N=0xhost\0CHAP_R=0x00112233445566778899aabbccddeeff\0"],
        vec!["AuthMethod=CHAP\0", "AuthMethod=None\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_A=5\0", "CHAP_A=5\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_A=5\0", "CHAP_N=0xhost\0CHAP_R=0x00\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_A=5\0", "CHAP_N=0xhost\0CHAP_R=zz\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_A=5\0", "CHAP_N=0xhost\0"],
        vec!["AuthMethod=CHAP\0", "CHAP_A=5\0CHAP_A=5\0"],
    ];
    for steps in texts {
        let mut rig = with_chap(true, false);
        let conn = rig.dial(0);
        let mut names = names(HOST, NAME);
        for (at, step) in steps.iter().enumerate() {
            let text = format!("{names}{step}");
            let (response, _) = rig.ask(conn, &request(Stage::Security, Some(FULL)), &text).unwrap();
            let last = at + 1 == steps.len();
            let want = if last { LoginStatus::AuthenticationFailed } else { LoginStatus::Success };
            assert_eq!(response.status(), Some(want), "{steps:?} at {at}");
            names.clear();
        }
        rig.finish();
    }
}

#[test]
fn wrong_logins_slow_down_their_own_address_only() {
    let mut rig = with_chap(true, false);
    let kind = format!("TargetName={NAME}\0");
    for _ in 0..32 {
        assert_eq!(prove(&mut rig, &Say { secret: b"guess", ..GOOD }, &kind).0, LoginStatus::AuthenticationFailed);
    }
    let refused = rig.dial(0);
    rig.turns(10);
    assert!(rig.closed(refused));
    rig.pass_ms(1_100);
    assert_eq!(prove(&mut rig, &GOOD, &kind).0, LoginStatus::Success);
    rig.finish();
}

#[test]
fn discovery_sessions_list_and_do_nothing_else() {
    let mut rig = Rig::plain();
    let conn = rig.dial(0);
    let (response, got) =
        rig.login_as(conn, [9; 6], &format!("InitiatorName={HOST}\0SessionType=Discovery\0"), "MaxBurstLength=512\0");
    assert_eq!(response.status(), Some(LoginStatus::Success));
    assert_eq!((got.key("MaxBurstLength").as_deref(), got.key("TargetPortalGroupTag")), (Some("Irrelevant"), None));
    let mut ask = TextRequest::new(5, NO_TAG, 16);
    ask.cmd_sn.set(0);
    rig.put(conn, Digests::NONE, &ask, b"SendTargets=All\0");
    let got = rig.recv_within(conn, Digests::NONE, 20).unwrap();
    assert_eq!(got.key("TargetName").as_deref(), Some(NAME));
    let mut cmd = ScsiCommand::new(FINAL | 1, Lun::of(0), 9, 0, 0, [0; 16]);
    cmd.cmd_sn.set(1);
    rig.put(conn, Digests::NONE, &cmd, &[]);
    assert_eq!(rig.recv_within(conn, Digests::NONE, 20).unwrap().opcode(), Opcode::Reject);
    rig.pass_ms(60_000);
    while let Some(got) = rig.recv_within(conn, Digests::NONE, 0) {
        assert_eq!(got.opcode(), Opcode::NopIn);
    }
    rig.finish();
}
