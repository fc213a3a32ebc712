//! The oracle accepts every legal outcome and no other.

use super::*;

const V: VolumeId = VolumeId(1);
const SHAPE: Shape = Shape { bytes: 1 << 20, lba: 4096, revision: 0 };

fn oracle(lba: u32) -> Oracle {
    let mut o = Oracle::new(Pattern::new(5));
    let op = o.shape(0, V, Shape { lba, ..SHAPE });
    o.ack(0, op);
    o
}

fn data(sector: u64, writes: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, write) in writes.iter().enumerate() {
        let mut s = [0; 512];
        if *write != 0 {
            Pattern::new(5).fill(1, sector + i as u64, *write, &mut s);
        }
        out.extend(s);
    }
    out
}

fn recovers(o: &Oracle, block: u64, write: u32) -> bool {
    let bytes = data(block * 8, &[write; 8]);
    o.clone().recovered(99, V, block * 8, &bytes, Trust::Exact).is_ok()
}

#[test]
fn acknowledged_writes_stay_and_open_ones_may() {
    let mut o = oracle(4096);
    let a = o.write(1, V, 3, 2);
    assert!(recovers(&o, 3, 0) && recovers(&o, 3, a) && recovers(&o, 4, a) && !recovers(&o, 5, a));
    o.ack(2, a);
    let b = o.write(3, V, 4, 1);
    let c = o.zero(4, V, 3, 1);
    assert!(recovers(&o, 3, a) && recovers(&o, 3, 0) && recovers(&o, 4, a) && recovers(&o, 4, b));
    assert!(!recovers(&o, 4, 0) && !recovers(&o, 3, b));
    o.ack(5, c);
    assert!(recovers(&o, 3, 0) && !recovers(&o, 3, a));
    o.recovered(6, V, 32, &data(32, &[b; 8]), Trust::Exact).unwrap();
    assert!(!recovers(&o, 4, a), "b was seen");
    let stale = o.recovered(7, V, 32, &data(32, &[a; 8]), Trust::Exact).unwrap_err();
    assert_eq!(stale.wrong, Wrong::Value { found: a, known: true });
    assert!(stale.to_string().contains("went away"), "{stale}");
    o.recovered(8, V, 32, &data(32, &[a; 8]), Trust::EverWritten).unwrap();
}

#[test]
fn a_block_of_two_writes_is_torn_unless_sectors_are_blocks() {
    for lba in [4096, 512] {
        let mut o = oracle(lba);
        let per = 4096 / u64::from(lba);
        let a = o.write(0, V, 0, per);
        let b = o.write(0, V, 0, per);
        let mixed = o.recovered(1, V, 0, &data(0, &[a, a, b, b, a, a, a, 0]), Trust::Exact);
        assert_eq!(mixed.is_ok(), lba == 512, "{mixed:?}");
    }
}

#[test]
fn data_of_elsewhere_is_never_right() {
    let mut o = oracle(4096);
    let a = o.write(0, V, 0, 2);
    let moved = o.recovered(1, V, 8, &data(0, &[a; 8]), Trust::EverWritten).unwrap_err();
    assert!(matches!(moved.wrong, Wrong::Foreign(Found::Elsewhere { .. })), "{moved}");
}

#[test]
fn live_reads_see_what_was_there_when_they_asked() {
    let mut o = oracle(4096);
    let a = o.write(0, V, 0, 1);
    let early = o.reader(0);
    o.ack(0, a);
    let late = o.reader(0);
    let zero = data(0, &[0; 8]);
    assert!(o.clone().read(0, V, 0, &zero, early, Trust::Exact).is_ok());
    assert!(o.read(0, V, 0, &zero, late, Trust::Exact).is_err());
}

#[test]
fn volumes_persist_and_a_shrink_takes_its_blocks_with_it() {
    let mut o = oracle(4096);
    let a = o.write(0, V, 100, 1);
    o.ack(0, a);
    let small = Shape { bytes: 64 * 4096, revision: 1, ..SHAPE };
    o.shape(1, V, small);
    let found = |shape: Option<Shape>| shape.map(|s| (V, s)).into_iter().collect::<BTreeMap<_, _>>();
    assert!(o.clone().recovered_volumes(2, &found(None), Trust::Exact).is_err(), "created and acknowledged");
    let mut shrunk = o.clone();
    shrunk.recovered_volumes(2, &found(Some(small)), Trust::Exact).unwrap();
    assert!(recovers(&shrunk, 100, 0) && !recovers(&shrunk, 100, a));
    let mut kept = o.clone();
    kept.recovered_volumes(2, &found(Some(SHAPE)), Trust::Exact).unwrap();
    assert!(recovers(&kept, 100, a) && !recovers(&kept, 100, 0), "no shrink, no loss");
    let gone = kept.delete(3, V);
    assert_eq!(kept.volumes().count(), 0, "open requests hide a volume");
    assert!(kept.clone().recovered_volumes(4, &found(Some(SHAPE)), Trust::Exact).is_ok());
    kept.ack(4, gone);
    assert!(
        kept.recovered_volumes(5, &found(Some(SHAPE)), Trust::Exact).is_err(),
        "a deleted volume does not come back"
    );
    assert!(kept.recovered_volumes(5, &[(VolumeId(9), SHAPE)].into(), Trust::Exact).is_err(), "nor one nobody made");
}

#[test]
fn a_cut_forgets_answers_that_came_later() {
    let mut o = oracle(4096);
    let a = o.write(10, V, 0, 1);
    o.ack(20, a);
    assert!(!recovers(&o, 0, 0));
    let then = o.at(19);
    assert!(recovers(&then, 0, 0) && recovers(&then, 0, a));
    let before = o.at(9);
    assert!(recovers(&before, 0, 0) && !recovers(&before, 0, a));
}
