//! Reservations against SPC-4: every type with every kind of nexus and access, every service action's outcomes, and
//! long random sequences against a second, plainer statement of the rules.

use super::*;
use crate::base::rng::Rng;

fn nexus(n: u8) -> Nexus {
    Nexus { initiator: Arc::from([n]), target: 1, port: 1 }
}

fn on_port(n: u8, port: u16) -> Nexus {
    Nexus { port, ..nexus(n) }
}

fn key(n: u8) -> u64 {
    0x1000 + u64::from(n)
}

fn register(key: u64, new_key: u64) -> Op {
    Op::Register { key, new_key, aptpl: false, initiators: None, ports: None }
}

fn ignore(new_key: u64) -> Op {
    Op::RegisterIgnore { new_key, aptpl: false, ports: None }
}

fn preempt(who: u8, victim: u64, kind: Type) -> Op {
    Op::Preempt { key: key(who), victim, kind: Some(kind), abort: false }
}

fn reserve(who: u8, kind: Type) -> Op {
    Op::Reserve { key: key(who), kind }
}

fn release(who: u8, kind: Type) -> Op {
    Op::Release { key: key(who), kind: Some(kind) }
}

/// `n` nexuses, 1 to n, registered with their keys.
fn registered(n: u8) -> Reservations {
    (1..=n).fold(Reservations::default(), |r, n| done(&r, n, &register(0, key(n))).0)
}

/// The same, with the first of them holding a reservation.
fn reserved(n: u8, kind: Type) -> Reservations {
    done(&registered(n), 1, &reserve(1, kind)).0
}

fn done(r: &Reservations, who: u8, op: &Op) -> (Reservations, Vec<Told>) {
    let applied = r.apply(&nexus(who), op).unwrap_or_else(|e| panic!("{op:?} by {who}: {e:?}"));
    (applied.next, applied.told)
}

fn refused(r: &Reservations, who: u8, op: &Op) -> Refused {
    r.apply(&nexus(who), op).expect_err("must be refused")
}

fn told(notices: &[(u8, Notice)]) -> Vec<Told> {
    notices.iter().map(|(n, what)| Told { nexus: nexus(*n), notice: Some(*what), abort: false }).collect()
}

#[test]
fn every_type_permits_what_the_table_says() {
    use Type::{
        ExclusiveAccess, ExclusiveAccessAllRegistrants, ExclusiveAccessRegistrantsOnly, WriteExclusive,
        WriteExclusiveAllRegistrants, WriteExclusiveRegistrantsOnly,
    };
    // (type, [read, write] of a registrant that is not the establisher, [read, write] of one that is not registered).
    let table = [
        (WriteExclusive, [true, false], [true, false]),
        (ExclusiveAccess, [false, false], [false, false]),
        (WriteExclusiveRegistrantsOnly, [true, true], [true, false]),
        (ExclusiveAccessRegistrantsOnly, [true, true], [false, false]),
        (WriteExclusiveAllRegistrants, [true, true], [true, false]),
        (ExclusiveAccessAllRegistrants, [true, true], [false, false]),
    ];
    assert_eq!(table.map(|(kind, ..)| kind), Type::ALL);
    for (kind, registrant, stranger) in table {
        let r = reserved(2, kind);
        for (who, [reads, writes]) in [(1, [true, true]), (2, registrant), (3, stranger)] {
            let who = nexus(who);
            assert_eq!(r.permits(&who, Access::Read), reads, "{kind:?} {who:?} read");
            assert_eq!(r.permits(&who, Access::Write), writes, "{kind:?} {who:?} write");
            assert!(r.permits(&who, Access::Inspect) && r.permits(&who, Access::Always));
        }
        assert_eq!(r.holds(&nexus(2)), kind.all_registrants());
        assert!(!r.is_free() && r.holds(&nexus(1)) && !r.holds(&nexus(3)));
        // The same initiator through another port, or on another target device, is another nexus.
        let elsewhere = Nexus { target: 2, ..nexus(1) };
        for other in [on_port(1, 2), elsewhere] {
            assert_eq!(r.permits(&other, Access::Write), stranger[1]);
        }
    }
}

#[test]
fn without_a_reservation_everything_is_permitted_to_all() {
    for r in [Reservations::default(), registered(2)] {
        for who in 1..=3 {
            for access in [Access::Always, Access::Inspect, Access::Read, Access::Write] {
                assert!(r.is_free() && r.permits(&nexus(who), access));
            }
        }
    }
}

#[test]
fn the_codes_of_the_types_are_those_of_the_standard() {
    assert_eq!(Type::ALL.map(Type::scsi), [1, 3, 5, 6, 7, 8]);
    for code in 0..=255 {
        assert_eq!(Type::from_scsi(code).map(Type::scsi), [1, 3, 5, 6, 7, 8].contains(&code).then_some(code));
    }
}

#[test]
fn register_follows_the_table_of_behaviours() {
    let empty = Reservations::default();
    // Not registered: a key where there is none; nothing asked; registration.
    assert_eq!(refused(&empty, 1, &register(9, key(1))), Refused::Conflict);
    assert_eq!(done(&empty, 1, &register(0, 0)).0, empty);
    let one = done(&empty, 1, &register(0, key(1))).0;
    assert_eq!((one.key(&nexus(1)), one.generation()), (Some(key(1)), 1));
    // Registered: the wrong key, a new key, no key any more.
    assert_eq!(refused(&one, 1, &register(0, 5)), Refused::Conflict);
    assert_eq!(refused(&one, 1, &register(9, 5)), Refused::Conflict);
    let changed = done(&one, 1, &register(key(1), 5)).0;
    assert_eq!((changed.key(&nexus(1)), changed.generation()), (Some(5), 2));
    let gone = done(&changed, 1, &register(5, 0)).0;
    assert!(gone.registrants().is_empty());
    assert_eq!(gone.generation(), 3);
}

#[test]
fn register_and_ignore_never_asks_for_the_key() {
    let empty = Reservations::default();
    assert_eq!(done(&empty, 1, &ignore(0)).0, empty);
    let one = done(&empty, 1, &ignore(7)).0;
    let two = done(&one, 1, &ignore(8)).0;
    assert_eq!((two.key(&nexus(1)), two.generation()), (Some(8), 2));
    assert!(done(&two, 1, &ignore(0)).0.registrants().is_empty());
}

#[test]
fn registering_other_initiators_spares_those_that_are_registered() {
    let r = done(&Reservations::default(), 2, &register(0, key(2))).0;
    let initiators = Some(vec![Arc::from([2_u8]), Arc::from([3_u8])]);
    let op = Op::Register { key: 0, new_key: 77, aptpl: false, initiators: initiators.clone(), ports: None };
    let r = done(&r, 1, &op).0;
    let keys: Vec<_> = (1..=4).map(|n| r.key(&nexus(n))).collect();
    assert_eq!(keys, [Some(77), Some(key(2)), Some(77), None]);
    // Only who is not registered itself may, and not without a key.
    let again = Op::Register { key: 77, new_key: 78, aptpl: false, initiators: initiators.clone(), ports: None };
    assert_eq!(refused(&r, 1, &again), Refused::InvalidField);
    let no_key = Op::Register { key: 0, new_key: 0, aptpl: false, initiators, ports: None };
    assert_eq!(refused(&r, 4, &no_key), Refused::InvalidField);
}

#[test]
fn registering_on_all_ports_acts_on_each_of_them() {
    let ports = Some(vec![1, 2, 3]);
    let all = |key, new_key| Op::Register { key, new_key, aptpl: false, initiators: None, ports: ports.clone() };
    // Port 2 has a key of its own already: the request would have been refused there.
    let r = Reservations::default().apply(&on_port(1, 2), &register(0, 5)).expect("registers").next;
    let r = done(&r, 1, &all(0, key(1))).0;
    let keys = |r: &Reservations| [1, 2, 3].map(|port| r.key(&on_port(1, port)));
    assert_eq!(keys(&r), [Some(key(1)), Some(5), Some(key(1))]);
    assert_eq!(keys(&done(&r, 1, &all(key(1), 9)).0), [Some(9), Some(5), Some(9)]);
    assert_eq!(keys(&done(&r, 1, &all(key(1), 0)).0), [None, Some(5), None]);
    let ignoring = Op::RegisterIgnore { new_key: 6, aptpl: false, ports: ports.clone() };
    assert_eq!(keys(&done(&r, 1, &ignoring).0), [Some(6); 3]);
    // Listed initiators are registered on every port, too.
    let initiators = Some(vec![Arc::from([4_u8])]);
    let op = Op::Register { key: 0, new_key: 7, aptpl: false, initiators, ports };
    let r = done(&Reservations::default(), 3, &op).0;
    assert_eq!(r.registrants().len(), 6);
    assert!(r.registrants().iter().all(|r| r.key == 7));
}

#[test]
fn a_registration_too_many_changes_nothing() {
    let mut r = Reservations::default();
    for n in 0..REGISTRANTS_MAX as u8 - 1 {
        r = done(&r, n, &register(0, 1)).0;
    }
    let initiators = Some(vec![Arc::from([201_u8])]);
    let two = Op::Register { key: 0, new_key: 1, aptpl: true, initiators, ports: None };
    assert_eq!(refused(&r, 200, &two), Refused::NoResources);
    let r = done(&r, 200, &register(0, 1)).0;
    assert_eq!(r.registrants().len(), REGISTRANTS_MAX);
    assert_eq!(refused(&r, 201, &ignore(1)), Refused::NoResources);
    let r = done(&r, 0, &reserve_with(1, Type::WriteExclusive)).0;
    let give = Op::RegisterMove { key: 1, new_key: 1, aptpl: false, unregister: true, to: nexus(201) };
    assert_eq!(refused(&r, 0, &give), Refused::NoResources);
    assert_eq!(done(&r, 200, &register(1, 2)).0.key(&nexus(200)), Some(2));
}

fn reserve_with(key: u64, kind: Type) -> Op {
    Op::Reserve { key, kind }
}

#[test]
fn a_holder_that_unregisters_releases() {
    for kind in Type::ALL {
        let r = reserved(3, kind);
        let (r, notices) = done(&r, 1, &register(key(1), 0));
        if kind.all_registrants() {
            // The last registrant takes the reservation with it.
            assert!(r.reservation().is_some() && notices.is_empty());
            let r = done(&r, 2, &ignore(0)).0;
            assert!(!r.is_free() && r.holds(&nexus(3)));
            let (r, notices) = done(&r, 3, &ignore(0));
            assert!(r.is_free() && notices.is_empty());
        } else {
            assert!(r.is_free());
            let expected = [(2, Notice::ReservationsReleased), (3, Notice::ReservationsReleased)];
            assert_eq!(notices, told(if kind.favours_registrants() { &expected } else { &[] }), "{kind:?}");
        }
        // Anybody else's going changes no reservation.
        let r = done(&reserved(3, kind), 2, &ignore(0)).0;
        assert!(r.reservation().is_some());
    }
}

#[test]
fn reserve_is_for_registrants_and_never_takes_over() {
    for kind in Type::ALL {
        let r = registered(2);
        assert_eq!(refused(&r, 3, &reserve_with(0, kind)), Refused::Conflict);
        assert_eq!(refused(&r, 1, &reserve_with(9, kind)), Refused::Conflict);
        let (held, notices) = done(&r, 1, &reserve(1, kind));
        assert!(notices.is_empty());
        assert_eq!(held.generation(), r.generation(), "RESERVE is no change of registrations");
        for other in Type::ALL {
            for who in 1..=2 {
                let again = held.apply(&nexus(who), &reserve(who, other));
                if other == kind && (who == 1 || kind.all_registrants()) {
                    assert_eq!(again.expect("holds it").next, held);
                } else {
                    assert_eq!(again.expect_err("another's"), Refused::Conflict);
                }
            }
        }
    }
}

#[test]
fn release_needs_the_type_and_tells_registrants() {
    for kind in Type::ALL {
        let r = reserved(3, kind);
        assert_eq!(refused(&r, 4, &release(4, kind)), Refused::Conflict);
        assert_eq!(refused(&r, 1, &Op::Release { key: 9, kind: Some(kind) }), Refused::Conflict);
        for other in Type::ALL.into_iter().filter(|k| *k != kind) {
            assert_eq!(refused(&r, 1, &release(1, other)), Refused::InvalidRelease);
        }
        assert_eq!(refused(&r, 1, &Op::Release { key: key(1), kind: None }), Refused::InvalidRelease);
        let (same, notices) = done(&r, 2, &release(2, kind));
        if !kind.all_registrants() {
            assert_eq!((same, notices), (r.clone(), Vec::new()), "not the holder: nothing happens");
        }
        let (free, notices) = done(&r, 1, &release(1, kind));
        assert!(free.is_free() && free.registrants() == r.registrants());
        assert_eq!(free.generation(), r.generation());
        let expected = [(2, Notice::ReservationsReleased), (3, Notice::ReservationsReleased)];
        assert_eq!(notices, told(if kind.favours_registrants() { &expected } else { &[] }));
        assert_eq!(done(&free, 2, &release(2, kind)).0, free, "nothing to release");
    }
}

#[test]
fn clear_leaves_nothing_and_tells_all_others() {
    for kind in Type::ALL {
        let r = reserved(3, kind);
        assert_eq!(refused(&r, 4, &Op::Clear { key: 0 }), Refused::Conflict);
        assert_eq!(refused(&r, 2, &Op::Clear { key: key(1) }), Refused::Conflict);
        let (clear, notices) = done(&r, 2, &Op::Clear { key: key(2) });
        assert!(clear.is_free() && clear.registrants().is_empty());
        assert_eq!(clear.generation(), r.generation() + 1);
        assert_eq!(notices, told(&[(1, Notice::ReservationsPreempted), (3, Notice::ReservationsPreempted)]));
    }
}

#[test]
fn preempting_the_holder_takes_the_reservation() {
    for old in Type::ALL.into_iter().filter(|k| !k.all_registrants()) {
        for new in Type::ALL {
            let r = reserved(3, old);
            let (next, notices) = done(&r, 2, &preempt(2, key(1), new));
            assert_eq!(next.key(&nexus(1)), None);
            assert_eq!(next.reservation().map(|r| r.kind), Some(new));
            assert!(next.holds(&nexus(2)));
            assert_eq!(next.holds(&nexus(3)), new.all_registrants());
            assert_eq!(next.generation(), r.generation() + 1);
            let mut expected = vec![(1, Notice::RegistrationsPreempted)];
            expected.extend((old != new).then_some((3, Notice::ReservationsReleased)));
            assert_eq!(notices, told(&expected), "{old:?} by {new:?}");
        }
    }
}

#[test]
fn a_holder_preempts_itself_to_change_the_type() {
    let r = reserved(2, Type::WriteExclusive);
    let (next, notices) = done(&r, 1, &preempt(1, key(1), Type::ExclusiveAccess));
    assert_eq!(next.registrants(), r.registrants());
    assert_eq!(next.reservation().map(|r| r.kind), Some(Type::ExclusiveAccess));
    assert_eq!(notices, told(&[(2, Notice::ReservationsReleased)]));
    // Another with the same key loses its registration on the way.
    let shared = done(&r, 2, &register(key(2), key(1))).0;
    let (next, notices) = done(&shared, 1, &preempt(1, key(1), Type::WriteExclusive));
    assert_eq!(next.registrants().len(), 1);
    assert_eq!(notices, told(&[(2, Notice::RegistrationsPreempted)]));
}

#[test]
fn preempting_no_holder_only_removes_registrations() {
    let states = [registered(3)].into_iter().chain(Type::ALL.map(|kind| reserved(3, kind)));
    for r in states {
        let (next, notices) = done(&r, 2, &preempt(2, key(3), Type::ExclusiveAccess));
        assert_eq!((next.reservation(), next.key(&nexus(3))), (r.reservation(), None));
        assert_eq!(next.generation(), r.generation() + 1);
        assert_eq!(notices, told(&[(3, Notice::RegistrationsPreempted)]));
        assert_eq!(refused(&r, 2, &preempt(2, 9, Type::ExclusiveAccess)), Refused::Conflict, "nobody has that key");
        assert_eq!(refused(&r, 4, &preempt(4, key(1), Type::ExclusiveAccess)), Refused::Conflict);
        let wrong_key = Op::Preempt { key: 9, victim: key(1), kind: Some(Type::ExclusiveAccess), abort: false };
        assert_eq!(refused(&r, 2, &wrong_key), Refused::Conflict);
        // The type does not matter where no reservation is made.
        let no_type = Op::Preempt { key: key(2), victim: key(3), kind: None, abort: false };
        assert_eq!(done(&r, 2, &no_type).0, next);
        // Key 0 means something under all-registrants types only.
        if r.reservation().is_none_or(|r| r.holder.is_some()) {
            assert_eq!(refused(&r, 2, &preempt(2, 0, Type::ExclusiveAccess)), Refused::InvalidField);
        }
    }
}

#[test]
fn preempting_all_registrants_leaves_the_preemptor() {
    for old in [Type::WriteExclusiveAllRegistrants, Type::ExclusiveAccessAllRegistrants] {
        for new in Type::ALL {
            let (next, notices) = done(&reserved(3, old), 2, &preempt(2, 0, new));
            assert_eq!(next.registrants(), [Registrant { nexus: nexus(2), key: key(2) }]);
            assert_eq!(
                next.reservation(),
                Some(&Reservation { kind: new, holder: (!new.all_registrants()).then(|| nexus(2)) })
            );
            assert_eq!(notices, told(&[(1, Notice::RegistrationsPreempted), (3, Notice::RegistrationsPreempted)]));
        }
        let no_type = Op::Preempt { key: key(2), victim: 0, kind: None, abort: false };
        assert_eq!(refused(&reserved(3, old), 2, &no_type), Refused::InvalidType);
        // By its own key, the last registrant removes itself, and with it the reservation.
        let (next, notices) = done(&reserved(1, old), 1, &preempt(1, key(1), old));
        assert!(next.is_free() && next.registrants().is_empty() && notices.is_empty());
    }
}

#[test]
fn preempt_and_abort_names_whose_commands_end() {
    let abort = |victim| Op::Preempt { key: key(2), victim, kind: Some(Type::WriteExclusive), abort: true };
    let (_, notices) = done(&reserved(3, Type::WriteExclusive), 2, &abort(key(1)));
    let notice = Some(Notice::RegistrationsPreempted);
    assert_eq!(notices, [Told { nexus: nexus(1), notice, abort: true }]);
    // With one's own key, one's own commands end too, without a unit attention.
    let (_, notices) = done(&registered(3), 2, &abort(key(2)));
    assert_eq!(notices, [Told { nexus: nexus(2), notice: None, abort: true }]);
    let (_, notices) = done(&reserved(3, Type::WriteExclusiveAllRegistrants), 2, &abort(0));
    let released = Notice::ReservationsReleased;
    assert_eq!(notices.iter().map(|t| (t.nexus.initiator[0], t.abort)).collect::<Vec<_>>(), [(1, true), (3, true)]);
    assert!(notices.iter().all(|t| t.notice != Some(released)));
    assert!(
        done(&reserved(3, Type::WriteExclusive), 2, &preempt(2, key(1), Type::WriteExclusive))
            .1
            .iter()
            .all(|t| !t.abort)
    );
}

#[test]
fn register_and_move_hands_the_reservation_over() {
    let give = |to: u8, new_key, unregister| Op::RegisterMove {
        key: key(1),
        new_key,
        aptpl: false,
        unregister,
        to: nexus(to),
    };
    for kind in Type::ALL {
        let r = reserved(2, kind);
        if kind.all_registrants() {
            assert_eq!(refused(&r, 1, &give(3, 5, false)), Refused::Conflict);
            continue;
        }
        let (next, notices) = done(&r, 1, &give(3, 5, false));
        assert!(next.holds(&nexus(3)) && !next.holds(&nexus(1)) && notices.is_empty());
        assert_eq!((next.key(&nexus(1)), next.key(&nexus(3))), (Some(key(1)), Some(5)));
        assert_eq!(next.generation(), r.generation() + 1);
        // A registrant's key is replaced; the giver may go.
        let (next, _) = done(&r, 1, &give(2, 6, true));
        assert_eq!(next.registrants(), [Registrant { nexus: nexus(2), key: 6 }]);
        assert!(next.holds(&nexus(2)));
        assert_eq!(refused(&r, 1, &give(1, 5, false)), Refused::InvalidField);
        assert_eq!(refused(&r, 1, &give(3, 0, false)), Refused::InvalidField);
        let not_holder = Op::RegisterMove { key: key(2), new_key: 5, aptpl: false, unregister: false, to: nexus(3) };
        assert_eq!(refused(&r, 2, &not_holder), Refused::Conflict);
        assert_eq!(refused(&r, 3, &give(2, 5, false)), Refused::Conflict);
    }
    assert_eq!(refused(&registered(2), 1, &give(3, 5, false)), Refused::Conflict, "nothing to hand over");
}

#[test]
fn only_with_aptpl_anything_is_kept() {
    let with = |aptpl| Op::RegisterIgnore { new_key: 5, aptpl, ports: None };
    let off = reserved(2, Type::WriteExclusive);
    assert_eq!(off.kept(), None);
    // The last registering command decides for all (SPC-4 5.13.5).
    let on = done(&off, 2, &with(true)).0;
    let (registrants, reservation) = on.kept().expect("kept");
    let back = Reservations::restored(registrants.to_vec(), reservation.cloned()).expect("sound");
    assert_eq!((back.registrants(), back.reservation()), (on.registrants(), on.reservation()));
    assert!(back.aptpl() && back.generation() == 0);
    assert_eq!(done(&on, 2, &with(false)).0.kept(), None);
    let moved = Op::RegisterMove { key: key(1), new_key: 1, aptpl: false, unregister: false, to: nexus(3) };
    assert!(!done(&on, 1, &moved).0.aptpl());
    // Nobody left: nothing to keep.
    assert_eq!(done(&on, 1, &Op::Clear { key: key(1) }).0.kept(), None);
}

#[test]
fn kept_parts_that_contradict_each_other_are_refused() {
    let who = |n| Registrant { nexus: nexus(n), key: key(n) };
    let held = |kind, holder: Option<u8>| Some(Reservation { kind, holder: holder.map(nexus) });
    let (we, all) = (Type::WriteExclusive, Type::WriteExclusiveAllRegistrants);
    assert!(Reservations::restored(vec![who(1)], held(we, Some(1))).is_some());
    assert!(Reservations::restored(vec![who(1)], held(all, None)).is_some());
    assert!(Reservations::restored(vec![who(1)], held(we, Some(2))).is_none());
    assert!(Reservations::restored(vec![who(1)], held(we, None)).is_none());
    assert!(Reservations::restored(vec![who(1)], held(all, Some(1))).is_none());
    assert!(Reservations::restored(vec![], held(all, None)).is_none());
    assert!(Reservations::restored(vec![who(1), who(1)], None).is_none());
    assert!(Reservations::restored(vec![Registrant { nexus: nexus(1), key: 0 }], None).is_none());
}

#[test]
fn the_old_reserve_excludes_all_others_until_it_ends() {
    let r = done(&Reservations::default(), 1, &Op::Reserve6).0;
    assert_eq!(done(&r, 1, &Op::Reserve6).0, r, "again: still held");
    assert_eq!(refused(&r, 2, &Op::Reserve6), Refused::Conflict);
    for access in [Access::Inspect, Access::Read, Access::Write] {
        assert!(r.permits(&nexus(1), access) && !r.permits(&nexus(2), access));
    }
    assert!(r.permits(&nexus(2), Access::Always));
    for who in 1..=2 {
        assert_eq!(refused(&r, who, &register(0, 1)), Refused::Conflict, "persistent and old ones do not mix");
    }
    assert_eq!(done(&r, 2, &Op::Release6).0, r, "releasing another's does nothing");
    assert_eq!(done(&r, 2, &Op::NexusLost).0, r);
    for end in [Op::Release6, Op::NexusLost, Op::Reset] {
        assert!(done(&r, 1, &end).0.is_free());
    }
    assert!(done(&r, 2, &Op::Reset).0.is_free(), "a reset ends anybody's");
    assert_eq!(r.kept(), None);
}

#[test]
fn persistent_reservations_outlive_nexus_and_reset() {
    for kind in Type::ALL {
        let r = reserved(2, kind);
        assert_eq!(done(&r, 1, &Op::NexusLost), (r.clone(), Vec::new()));
        assert_eq!(done(&r, 1, &Op::Reset), (r.clone(), Vec::new()));
    }
}

#[test]
fn the_old_pair_does_nothing_for_those_who_may_and_conflicts_for_others() {
    for kind in Type::ALL {
        let r = reserved(2, kind);
        for op in [Op::Reserve6, Op::Release6] {
            assert_eq!(done(&r, 1, &op).0, r);
            if kind.favours_registrants() {
                assert_eq!(done(&r, 2, &op).0, r);
            } else {
                assert_eq!(refused(&r, 2, &op), Refused::Conflict);
            }
            assert_eq!(refused(&r, 3, &op), Refused::Conflict);
        }
    }
    for who in [1, 3] {
        assert_eq!(refused(&registered(2), who, &Op::Reserve6), Refused::Conflict);
        assert_eq!(refused(&registered(2), who, &Op::Release6), Refused::Conflict);
    }
}

#[test]
fn generation_wraps_and_counts_changes_of_registrations_only() {
    let mut r = reserved(2, Type::WriteExclusive);
    r.generation = u32::MAX;
    assert_eq!(done(&r, 2, &register(key(2), 5)).0.generation(), 0);
    for op in [Op::Reset, Op::NexusLost, release(1, Type::WriteExclusive), reserve(1, Type::WriteExclusive)] {
        assert_eq!(done(&r, 1, &op).0.generation(), u32::MAX, "{op:?}");
    }
}

/// Random commands of five nexuses with few keys: what the value says must agree with what the last commands did, and
/// every value is sound (asserted in `apply`). Who lost a registration or could suddenly do more was told.
#[test]
fn random_sequences_keep_the_rules() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut r = Reservations::default();
        for _ in 0..500 {
            let who = nexus(rng.below(5) as u8);
            let op = random(&mut rng);
            let Ok(Applied { next, told }) = r.apply(&who, &op) else { continue };
            for other in (0..5).map(nexus).filter(|n| *n != who) {
                let heard = told.iter().any(|t| t.nexus == other && t.notice.is_some());
                let lost = r.key(&other).is_some() && next.key(&other).is_none();
                assert!(!lost || heard, "{op:?} of {who:?} took {other:?}'s registration unheard: {r:?}");
                assert!(!heard || r.key(&other).is_some(), "{op:?} told a stranger");
            }
            let persistent = !matches!(op, Op::Reserve6 | Op::Release6 | Op::NexusLost | Op::Reset);
            assert!(persistent || (r.registrants(), r.reservation()) == (next.registrants(), next.reservation()));
            if let Some(Reservation { holder: Some(holder), .. }) = next.reservation() {
                assert!(next.permits(holder, Access::Write) && next.permits(holder, Access::Read));
            }
            for n in (0..5).map(nexus) {
                let order = [Access::Write, Access::Read, Access::Inspect, Access::Always].map(|a| next.permits(&n, a));
                assert!(order.is_sorted(), "who may write may do everything: {order:?}");
            }
            r = next;
        }
    }
}

fn random(rng: &mut Rng) -> Op {
    let mut some = |n: u64| rng.below(n);
    let (key, new_key, aptpl) = (some(3), some(3), some(2) == 1);
    let kind = Type::ALL[some(6) as usize];
    let ports = (some(4) == 0).then(|| vec![1, 2]);
    match some(13) {
        0..=2 => {
            let initiators = (some(4) == 0).then(|| vec![Arc::from([some(5) as u8])]);
            Op::Register { key, new_key, aptpl, initiators, ports }
        }
        3 | 4 => Op::RegisterIgnore { new_key, aptpl, ports },
        5 => Op::RegisterMove { key, new_key, aptpl, unregister: some(2) == 1, to: nexus(some(5) as u8) },
        6 => Op::Reserve { key, kind },
        7 => Op::Release { key, kind: Some(kind) },
        8 if some(4) == 0 => Op::Clear { key },
        8 | 9 => Op::Preempt { key, victim: new_key, kind: Some(kind), abort: some(2) == 1 },
        10 => Op::Reserve6,
        11 => Op::Release6,
        _ if some(2) == 0 => Op::NexusLost,
        _ => Op::Reset,
    }
}
