//! The report's bounds and words; what the checker finds on damaged media is proven by the crash simulation.

use super::*;

#[test]
fn an_empty_or_unreadable_medium_holds_no_store() {
    let zeroes = |_: u64, into: &mut [u8]| {
        into.fill(0);
        Ok(())
    };
    assert_eq!(check(64 << 20, zeroes, |_, _| {}), Err(NoStore::Format(FormatError::Magic)));
    assert_eq!(check(0, zeroes, |_, _| {}), Err(NoStore::Format(FormatError::Short)));
    let broken = |_: u64, _: &mut [u8]| Err(DeviceError::Media);
    assert_eq!(check(64 << 20, broken, |_, _| {}), Err(NoStore::Device(DeviceError::Media)));
}

#[test]
fn a_superblock_that_claims_more_than_the_medium_is_refused() {
    let mut image = vec![0u8; 8 << 20];
    let sb = Superblock {
        id: LogId { store: [1; 16], slice: 0 },
        slices: 4,
        name: crate::store::Name::new("s").unwrap(),
        offset: 0,
        len: 4 << 20,
        geometry: crate::store::format::Geometry { segment_blocks: 16, segments: 32 },
        sequence: 1,
        root: (Addr::NONE, 0),
        checkpoint: 0,
        covered: 0,
        durable: 0,
        segment_seq: 1,
        places: [crate::store::format::Place {
            addr: Addr(32),
            next: crate::store::format::SegmentId::NONE,
            segment_seq: 1,
        }; 3],
        boundaries: vec![crate::store::format::Boundary { incarnation: 1, first: 1 }],
    };
    sb.encode(&mut image[..BLOCK]);
    let read = |offset: u64, into: &mut [u8]| {
        into.copy_from_slice(&image[offset as usize..][..into.len()]);
        Ok(())
    };
    assert_eq!(check(8 << 20, read, |_, _| {}), Err(NoStore::Format(FormatError::Field)));
}

#[test]
fn findings_are_counted_beyond_what_is_listed() {
    let mut report = Report {
        store: [0; 16],
        name: crate::store::Name::new("s").unwrap(),
        slices: Vec::new(),
        findings: Vec::new(),
        findings_total: 0,
    };
    let finding =
        Finding { slice: 1, addr: Addr(77), what: What::Hole { batch: 3, durable: 9 }, cause: Cause::Contradiction };
    for _ in 0..FINDINGS_MAX + 5 {
        report.add(finding);
    }
    assert_eq!((report.findings.len(), report.findings_total), (FINDINGS_MAX, FINDINGS_MAX as u64 + 5));
    assert!(!report.is_clean());
    let text = finding.to_string();
    assert!(text.starts_with("slice 1, block 77: batches 3 to 9 are missing"), "{text}");
}
