//! One fault at a time over everything on a quiet medium.

use crate::{first_seed, play};
use pollux::sim::sweep::{Part, Verdicts};
use pollux::sim::{Bench, Failure};
use std::time::Instant;

fn print(what: &str, v: Verdicts, start: Instant) {
    println!(
        "{what}: {} images, {} refused, {} partly unreadable, {} harmless, 0 wrong, {:.1} s",
        v.tried,
        v.refused,
        v.unreadable,
        v.harmless,
        start.elapsed().as_secs_f32()
    );
}

/// Of this many bytes of a structure, one is flipped under a store that is opened and read through; every bit of each
/// goes through the decoders.
const OPENED: usize = 64;

#[test]
fn a_flip_in_any_byte_of_a_structure_is_noticed_or_harmless() {
    let mut bench = Bench::new();
    let seed = first_seed();
    for checkpoint in [true, false] {
        for part in [Part::Superblock, Part::Header, Part::Page] {
            let start = Instant::now();
            let (mut sum, mut bits) = (Verdicts::default(), 0);
            play(&mut bench, "a_flip_in_any_byte", seed, |b| {
                let specimen = b.specimen(seed, 40, checkpoint)?;
                bits += b.sweep_decoders(&specimen, part)?;
                sum.add(b.sweep_bits(&specimen, part, OPENED)?);
                Ok(())
            });
            print(&format!("{bits} bits of every {part:?}, checkpoint {checkpoint}, all refused; opened"), sum, start);
            if checkpoint || part != Part::Page {
                assert!(bits >= 8 * 4096 && sum.tried >= 64, "nothing of this kind was there");
            }
        }
    }
}

#[test]
fn zeroed_swapped_and_stale_sectors_are_noticed_or_harmless() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let mut sum = Verdicts::default();
    for seed in first_seed()..first_seed() + 4 {
        play(&mut bench, "zeroed_swapped", seed, |b| {
            let specimen = b.specimen(seed, 200, seed % 2 == 0)?;
            sum.add(b.sweep_sectors(&specimen)?);
            Ok(())
        });
    }
    print("sectors zeroed, swapped, stale", sum, start);
    assert!(sum.tried > 500 && sum.refused > 0 && sum.harmless > 0, "{sum:?}");
}

#[test]
fn flipped_payload_is_an_error_never_data() {
    let (mut bench, start) = (Bench::new(), Instant::now());
    let mut sum = Verdicts::default();
    for seed in first_seed()..first_seed() + 4 {
        play(&mut bench, "flipped_payload", seed, |b| -> Result<(), Failure> {
            let specimen = b.specimen(seed, 100, seed % 2 == 0)?;
            sum.add(b.sweep_bits(&specimen, Part::Payload, 256)?);
            Ok(())
        });
    }
    print("bits of payload", sum, start);
    assert!(sum.unreadable > 100, "{sum:?}");
}
