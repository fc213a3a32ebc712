//! A million mutated inputs per decoder of the store's format: a value or an error, never a panic.
//!
//! Inputs begin as blocks of a real log, taken from simulated stores. Most get their checksum set right again after
//! the mutation, because behind a wrong one a decoder has nothing left to do.

use crate::{first_seed, play};
use pollux::base::BLOCK;
use pollux::base::crc::crc32c;
use pollux::base::rng::Rng;
use pollux::sim::Bench;
use pollux::sim::node::STORE;
use pollux::sim::sweep::Part;
use pollux::store::format::page::{decode_entries, decode_manifest};
use pollux::store::format::{Addr, Header, LogId, Superblock, VolumeMeta};
use std::time::Instant;

const INPUTS: u64 = 1_000_000;
const ID: LogId = LogId { store: STORE, slice: 0 };

/// Blocks of one kind from a few stores, with their places.
fn corpus(part: Part) -> Vec<(Addr, Vec<u8>)> {
    let mut bench = Bench::new();
    let mut blocks = Vec::new();
    for seed in first_seed()..first_seed() + 6 {
        play(&mut bench, "decoders", seed, |b| {
            let specimen = b.specimen(seed, 80, true)?;
            blocks.extend(specimen.blocks(part));
            Ok(())
        });
    }
    assert!(!blocks.is_empty(), "no {part:?} in any store");
    blocks
}

/// Changes a few places, more often near the front, where the fields are.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const WORDS: [u64; 10] = [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
    for _ in 0..=rng.below(6) {
        let reach = [64, 256, bytes.len() as u64][rng.below(3) as usize].min(bytes.len() as u64);
        let at = rng.below(reach.max(1)) as usize;
        let word = if rng.chance(70) { WORDS[rng.below(10) as usize] } else { rng.next_u64() }.to_le_bytes();
        let width = [1, 2, 4, 8][rng.below(4) as usize].min(bytes.len() - at);
        match rng.below(4) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 | 2 => bytes[at..at + width].copy_from_slice(&word[..width]),
            _ => {
                let from = rng.below((bytes.len() - width) as u64 + 1) as usize;
                bytes.copy_within(from..from + width, at);
            }
        }
    }
    if rng.below(64) == 0 {
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
    }
}

/// Sets the checksum in the last four bytes of a block right.
fn seal(block: &mut [u8]) {
    if block.len() == BLOCK {
        let crc = crc32c(&block[..BLOCK - 4]);
        block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Runs the inputs; `decode` says whether it got a value. Both outcomes must occur, or nothing was tested.
fn fuzz(what: &str, corpus: &[(Addr, Vec<u8>)], mut decode: impl FnMut(Addr, &mut Vec<u8>, &mut Rng) -> bool) {
    let (start, seed) = (Instant::now(), first_seed());
    let mut rng = Rng::new(seed);
    let (mut values, mut input) = (0, Vec::new());
    for _ in 0..INPUTS {
        let (addr, block) = &corpus[rng.below(corpus.len() as u64) as usize];
        input.clone_from(block);
        mutate(&mut input, &mut rng);
        values += u64::from(decode(*addr, &mut input, &mut rng));
    }
    println!("{what}: {INPUTS} inputs, {values} accepted, {:.1} s", start.elapsed().as_secs_f32());
    assert!(values > INPUTS / 1000 && values < INPUTS, "{what}: {values} of {INPUTS} accepted");
}

#[test]
fn superblocks() {
    fuzz("superblock", &corpus(Part::Superblock), |_, input, rng| {
        if rng.chance(90) {
            seal(input);
        }
        let Ok(superblock) = Superblock::decode(input) else { return false };
        let mut again = vec![0; BLOCK];
        superblock.encode(&mut again);
        assert_eq!(Superblock::decode(&again).as_ref(), Ok(&superblock));
        true
    });
}

#[test]
fn heads_of_devices() {
    let blocks = corpus(Part::Superblock);
    let mut head = vec![0; pollux::store::PROBE_BYTES];
    fuzz("probe", &blocks, |addr, input, rng| {
        if rng.chance(90) {
            seal(input);
        }
        let at = addr.0 as usize * BLOCK;
        let n = input.len();
        head[at..at + n].copy_from_slice(input);
        let shown = if rng.chance(5) { rng.below(head.len() as u64) as usize } else { head.len() };
        pollux::store::probe(&head[..shown]).is_ok()
    });
}

#[test]
fn batch_headers_and_their_records() {
    fuzz("batch header", &corpus(Part::Header), |addr, input, rng| {
        if rng.chance(90) {
            seal(input);
        }
        let Ok(header) = Header::decode(input, &ID, addr) else { return false };
        let mut payload = 0;
        for record in header.records(input) {
            let blocks = record.kind.payload(record.count);
            payload += blocks;
            for i in 0..blocks {
                std::hint::black_box(record.crc(i));
            }
            std::hint::black_box((record.meta().is_ok(), record.kind.tail(record.count)));
        }
        assert_eq!(payload, header.payload, "a proven header describes its payload");
        true
    });
}

#[test]
fn manifest_pages() {
    fuzz("manifest page", &corpus(Part::Page), |_, input, rng| {
        let crc = if rng.chance(95) { crc32c(input) } else { rng.next_u64() as u32 };
        decode_manifest(input, crc, &ID).is_ok()
    });
}

#[test]
fn leaves_and_directories() {
    fuzz("entries", &corpus(Part::Page), |_, input, _| decode_entries(input).count() == 512);
}

#[test]
fn volume_records() {
    let mut blocks = corpus(Part::Header);
    blocks.retain_mut(|(addr, block)| {
        let header = Header::decode(block, &ID, *addr).expect("from a sound store");
        let meta = header.records(block).find_map(|record| record.meta().ok());
        meta.is_some_and(|meta| {
            use zerocopy::IntoBytes;
            block.clear();
            block.extend_from_slice(meta.encode().as_bytes());
            true
        })
    });
    fuzz("volume record", &blocks, |_, input, _| {
        let Ok(meta) = VolumeMeta::decode(input) else { return false };
        meta.check().is_ok() && meta.blocks() * 4096 >= meta.bytes
    });
}
