//! The offline checker: silent about a sound store, and one byte changed in any kind of structure is found.

use super::harness::{Harness, config, meta};
use crate::base::{BLOCK, VolumeId};
use crate::device::DeviceError;
use crate::store::fsck::{NoStore, Report, Subject, What, check};
use crate::store::{FormatError, Limits, SliceConfig, StoreError};

const B: u64 = Harness::BLOCK_SECTORS;

fn check_image(image: &[u8]) -> Result<Report, NoStore> {
    let mut read = |at: u64, into: &mut [u8]| {
        into.copy_from_slice(&image[at as usize..at as usize + into.len()]);
        Ok(())
    };
    let mut last = (0, 1);
    let report = check(image.len() as u64, &mut read, &mut |done, total| last = (done, total));
    assert!(report.is_err() || last.0 == last.1, "progress ends at the total");
    report
}

/// A store with a checkpoint and a little log after it.
fn store() -> Harness {
    let cfg = SliceConfig { offset: 0, ..config(32, Limits::tiny()) };
    let mut h = Harness::with(cfg, false, true, 5);
    assert!(h.set_volume(meta(1, 4 << 20)).is_ok());
    for n in 0..20 {
        h.write_wait(1, n * 3 * B, (1 + n % 5) * B);
    }
    assert!(h.checkpoint().is_ok());
    h.write_wait(1, 600 * B, 4 * B);
    h.zero_wait(1, 0, 2 * B);
    h.quiesce();
    h
}

fn findings(image: &[u8]) -> Vec<What> {
    check_image(image).unwrap().findings.into_iter().map(|f| f.what).collect()
}

fn flipped(image: &[u8], block: u32, at: usize) -> Vec<What> {
    let mut image = image.to_vec();
    image[block as usize * BLOCK + at] ^= 0x40;
    findings(&image)
}

#[test]
fn a_sound_store_is_clean_and_counted_also_after_a_crash() {
    let mut h = store();
    let image = h.disk.crash_image();
    let report = check_image(&image).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let counts = report.slices[0];
    assert_eq!((report.slices.len(), counts.volumes, counts.mapped), (1, 1, h.blocks(1)));
    assert!(counts.verified_bytes > counts.mapped * BLOCK as u64, "blocks and the pages of the checkpoint");
    assert!(counts.batches > 20 && counts.replayed > 0 && counts.segments >= 2 && counts.lost == 0);
    h.crash();
    h.write_wait(1, 700 * B, B);
    assert_eq!(findings(&h.disk.crash_image()), []);
    h.close();
}

#[test]
fn a_flip_in_each_kind_of_structure_is_a_finding() {
    let mut h = store();
    let image = h.disk.crash_image();
    let slot = h.slice.index.slot(VolumeId(1)).unwrap();
    for copy in [0, 8, 16, 24] {
        assert_eq!(flipped(&image, copy, 100), [What::Superblock(FormatError::Checksum)]);
    }
    // A block of the volume: only that one.
    let place = h.slice.index.entry(slot, 30).addr;
    let subject = Subject::Block(VolumeId(1), 30);
    assert_eq!(flipped(&image, place.0, 4095), [What::Content(subject)]);
    // The header before the checkpoint: what lived behind it has no witness, but is whole.
    let first = h.slice.geometry.start(h.slice.geometry.segment(place));
    let found = flipped(&image, first.0, 90);
    assert!(found.contains(&What::Header(FormatError::Checksum)), "{found:?}");
    assert!(found.iter().all(|w| matches!(w, What::Header(_) | What::Undescribed(_))), "{found:?}");
    // Pages of the checkpoint.
    let dir = h.slice.index.dir(slot, 0).unwrap();
    let leaf = flipped(&image, dir.pages[0].durable.addr.0, 8);
    assert!(leaf.contains(&What::Content(Subject::Leaf(VolumeId(1), 0))), "{leaf:?}");
    let root = h.slice.superblock.as_ref().unwrap().root.0;
    for page in [dir.own.durable.addr, root] {
        let found = flipped(&image, page.0, 8);
        assert!(matches!(found[..], [What::Start(StoreError::Damaged { addr, .. })] if addr == page), "{found:?}");
    }
    // The first header after the checkpoint is called durable by the ones behind it: a hole.
    let after = h.slice.superblock.as_ref().unwrap().places[0].addr;
    let found = flipped(&image, after.0, 90);
    assert!(matches!(found[..], [What::Start(StoreError::Hole { .. })]), "{found:?}");
    h.close();
}

#[test]
fn what_can_not_be_read_is_a_finding_and_no_store_is_told_from_one() {
    let mut h = store();
    let image = h.disk.crash_image();
    let slot = h.slice.index.slot(VolumeId(1)).unwrap();
    let place = u64::from(h.slice.index.entry(slot, 30).addr.0) * BLOCK as u64;
    let mut read = |at: u64, into: &mut [u8]| {
        if (at..at + into.len() as u64).contains(&place) {
            return Err(DeviceError::Media);
        }
        into.copy_from_slice(&image[at as usize..at as usize + into.len()]);
        Ok(())
    };
    let report = check(image.len() as u64, &mut read, &mut |_, _| {}).unwrap();
    let found: Vec<What> = report.findings.iter().map(|f| f.what).collect();
    assert_eq!(found, [What::Unreadable(Subject::Block(VolumeId(1), 30))]);
    assert!(!report.findings[0].to_string().contains('\n'));
    // Half a device.
    let half = findings(&image[..1 << 20]);
    assert!(matches!(half[..], [What::Start(StoreError::Config(_))]), "{half:?}");
    assert_eq!(check_image(&[0; 1 << 20]), Err(NoStore::Superblock(FormatError::Magic)));
    assert_eq!(check_image(&[]), Err(NoStore::Superblock(FormatError::Magic)));
    let dead = check(1 << 20, &mut |_, _| Err(DeviceError::Dead), &mut |_, _| {});
    assert_eq!(dead, Err(NoStore::Read(DeviceError::Dead)));
    h.close();
}
