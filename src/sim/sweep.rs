//! One fault at a time over everything that lies on a quiet medium: a bit of every byte of every structure of the
//! log, every sector of them zeroed, swapped or stale, and bits of payload. Each must be refused, unreadable or
//! harmless; wrong data, a volume that is gone without a word or a panic is a failure.

use super::drive::{Drive, Ending};
use super::failure::Failure;
use super::host::{Host, Tolerance};
use super::node::{STORE, at_memory_speed};
use super::run::Bench;
use super::swarm::Swarm;
use super::{Image, SECTOR, Trust};
use crate::base::BLOCK;
use crate::base::crc::crc32c;
use crate::base::rng::Rng;
use crate::store::format::batch::Kind;
use crate::store::format::page::decode_manifest;
use crate::store::format::superblock::SLOTS;
use crate::store::format::{Addr, Geometry, Header, LogId, SegmentId, Superblock};

/// What a block of the medium is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// A copy of the superblock.
    Superblock,
    /// The header of a batch, with its records (volumes among them).
    Header,
    /// A page of a checkpoint: leaf, directory or manifest.
    Page,
    /// A block of a volume.
    Payload,
}

/// What became of damaged images.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Verdicts {
    /// Images tried.
    pub tried: u64,
    /// The slice refused to open.
    pub refused: u64,
    /// It opened, and some blocks were unreadable.
    pub unreadable: u64,
    /// Everything was there: a copy, or nothing that is needed any more.
    pub harmless: u64,
}

impl Verdicts {
    /// Adds the counts of another.
    pub fn add(&mut self, o: Verdicts) {
        self.tried += o.tried;
        self.refused += o.refused;
        self.unreadable += o.unreadable;
        self.harmless += o.harmless;
    }
}

/// A quiet medium to be damaged.
pub struct Specimen {
    swarm: Swarm,
    image: Image,
    older: Vec<Image>,
    host: Host,
    /// Every block in use.
    found: Vec<Found>,
}

/// A block in use.
#[derive(Clone, Copy)]
struct Found {
    part: Part,
    addr: Addr,
    /// CRC32C by the record that describes it; superblocks and headers carry their own.
    crc: u32,
    manifest: bool,
}

impl Specimen {
    /// The blocks of one kind, with their places.
    pub fn blocks(&self, part: Part) -> impl Iterator<Item = (Addr, Vec<u8>)> {
        self.of(part).map(|found| (found.addr, self.block(found.addr)))
    }

    fn of(&self, part: Part) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |found| found.part == part)
    }

    fn block(&self, addr: Addr) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        self.image.read(byte_of(addr), &mut block);
        block
    }
}

const DAMAGED: Tolerance = Tolerance { media: true, death: true, trust: Trust::Exact };

impl Bench {
    /// A small store after a workload; with `checkpoint` everything is in a checkpoint, otherwise in the log.
    pub fn specimen(&mut self, seed: u64, requests: u32, checkpoint: bool) -> Result<Specimen, Failure> {
        let mut swarm = Swarm::draw(seed);
        (swarm.slices, swarm.slice_bytes, swarm.requests) = (1, 2 << 20, requests);
        (swarm.limits.segment_bytes, swarm.limits.batch_bytes) = (64 << 10, 32 << 10);
        (swarm.limits.mark_idle_ns, swarm.limits.scrub_bytes_per_sec) = (500_000, 0);
        (swarm.space, swarm.volumes, swarm.sectors_max) = (30, 3, 16);
        self.specimen_swarm(swarm, checkpoint)
    }

    /// The same for a swarm of one slice.
    pub fn specimen_swarm(&mut self, swarm: Swarm, checkpoint: bool) -> Result<Specimen, Failure> {
        let mut rng = Rng::new(swarm.seed ^ 0x5eed);
        let mut host = Host::new(&swarm);
        let mut node = self.format(&swarm, rng.next_u64());
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        drive.start()?;
        let mut older = Vec::new();
        for _ in 0..4 {
            drive.load(swarm.requests / 4, swarm.depth, &mut rng)?;
            drive.settle()?;
            older.push(drive.node.disk.image().clone());
        }
        if checkpoint {
            drive.stop()?;
        }
        drive.verify()?;
        let image = self.off(node, &mut host)?.medium.durable().clone();
        let found = find(&image, &swarm);
        Ok(Specimen { swarm, image, older, host, found })
    }

    /// Inverts one bit in each `stride`-th byte of every block of this kind.
    pub fn sweep_bits(&mut self, specimen: &Specimen, part: Part, stride: usize) -> Result<Verdicts, Failure> {
        let mut rng = Rng::new(specimen.swarm.seed ^ 0xb175);
        let mut verdicts = Verdicts::default();
        for (number, found) in specimen.of(part).enumerate() {
            for byte in (number % stride..BLOCK).step_by(stride) {
                let mut image = specimen.image.clone();
                image.flip(byte_of(found.addr) + byte as u64, 1 << rng.below(8));
                verdicts.add(self.judge(specimen, &image, &mut rng)?);
            }
        }
        Ok(verdicts)
    }

    /// Inverts every bit of every block of this kind, one at a time: what decodes it must refuse it. Gives the number
    /// of bits.
    pub fn sweep_decoders(&mut self, specimen: &Specimen, part: Part) -> Result<u64, Failure> {
        specimen.of(part).map(|found| flip_all(found, &mut specimen.block(found.addr))).sum()
    }

    /// Zeroes, swaps and sets back every 512-byte sector of every structure, and every structure as a whole.
    pub fn sweep_sectors(&mut self, specimen: &Specimen) -> Result<Verdicts, Failure> {
        let mut rng = Rng::new(specimen.swarm.seed ^ 0x5ec7);
        let mut verdicts = Verdicts::default();
        let structures: Vec<Addr> =
            specimen.found.iter().filter(|found| found.part != Part::Payload).map(|found| found.addr).collect();
        for addr in &structures {
            let other = byte_of(structures[rng.below(structures.len() as u64) as usize]);
            let whole = (byte_of(*addr), BLOCK);
            let sectors = (0..BLOCK / SECTOR).map(|n| (byte_of(*addr) + (n * SECTOR) as u64, SECTOR));
            for (at, len) in sectors.chain([whole]) {
                for edit in Self::edits(specimen, at, len, other, &mut rng) {
                    let mut image = specimen.image.clone();
                    for (place, bytes) in edit {
                        image.write(place, &bytes);
                    }
                    if !image.same(&specimen.image) {
                        verdicts.add(self.judge(specimen, &image, &mut rng)?);
                    }
                }
            }
        }
        Ok(verdicts)
    }

    /// The ways in which the `len` bytes at `at` may be wrong, each as bytes to be put at places: zeroes, what was there
    /// earlier, and in exchange with another place.
    fn edits(specimen: &Specimen, at: u64, len: usize, other: u64, rng: &mut Rng) -> [Vec<(u64, Vec<u8>)>; 3] {
        let read = |image: &Image, from: u64| {
            let mut bytes = vec![0; len];
            image.read(from, &mut bytes);
            bytes
        };
        let old = &specimen.older[rng.below(specimen.older.len() as u64) as usize];
        let place = other + (at % BLOCK as u64);
        let swapped = vec![(at, read(&specimen.image, place)), (place, read(&specimen.image, at))];
        [vec![(at, vec![0; len])], vec![(at, read(old, at))], swapped]
    }

    /// Opens a damaged image and says what became of it.
    fn judge(&mut self, specimen: &Specimen, image: &Image, rng: &mut Rng) -> Result<Verdicts, Failure> {
        let swarm = &specimen.swarm;
        let mut host = specimen.host.fork(u64::MAX, rng.next_u64());
        host.tolerate(DAMAGED);
        let mut node = self.open(swarm, image.clone(), at_memory_speed(swarm.disk), rng.next_u64());
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        let mut ending = drive.start()?;
        if ending == Ending::Reached {
            ending = drive.verify()?;
        }
        // Now and then life goes on with the damage in place: cleaning and checkpoints must not spread it.
        if ending == Ending::Reached && rng.chance(3) {
            ending = drive.load(60, swarm.depth, rng)?;
            if ending == Ending::Reached {
                drive.stop()?;
                ending = drive.verify()?;
            }
        }
        let unreadable = host.answers().media_errors > 0;
        self.off(node, &mut host)?;
        let refused = matches!(ending, Ending::Broken(_));
        if (refused || unreadable) && rng.chance(10) {
            let error = if let Ending::Broken(error) = ending { Some(error) } else { None };
            self.check_sees(image, error)?;
        }
        Ok(Verdicts {
            tried: 1,
            refused: u64::from(refused),
            unreadable: u64::from(!refused && unreadable),
            harmless: u64::from(!refused && !unreadable),
        })
    }
}

fn byte_of(addr: Addr) -> u64 {
    u64::from(addr.0) * BLOCK as u64
}

const ID: LogId = LogId { store: STORE, slice: 0 };

/// Inverts each bit of a structure in turn: whoever decodes the block must refuse it. Gives the number of bits.
fn flip_all(found: &Found, block: &mut [u8]) -> Result<u64, Failure> {
    let taken = |block: &[u8]| match found.part {
        Part::Superblock => Superblock::decode(block).is_ok(),
        Part::Header => Header::decode(block, &ID, found.addr).is_ok(),
        Part::Page if found.manifest => decode_manifest(block, found.crc, &ID).is_ok(),
        Part::Page | Part::Payload => crc32c(block) == found.crc,
    };
    assert!(taken(block), "the {:?} at block {} is sound", found.part, found.addr.0);
    for byte in 0..BLOCK {
        for bit in 0..8 {
            block[byte] ^= 1 << bit;
            if taken(block) {
                return Err(Failure::Unnoticed { part: found.part, addr: found.addr, byte, bit });
            }
            block[byte] ^= 1 << bit;
        }
    }
    Ok(8 * BLOCK as u64)
}

/// Walks a slice at the start of `image` and lists what lies where.
fn find(image: &Image, swarm: &Swarm) -> Vec<Found> {
    let own = |part, addr| Found { part, addr, crc: 0, manifest: false };
    let mut all: Vec<_> = SLOTS.iter().flatten().map(|n| own(Part::Superblock, Addr(*n))).collect();
    let geometry = Geometry::new(swarm.slice_bytes, u64::from(swarm.limits.segment_bytes)).expect("a drawn size fits");
    let mut block = vec![0; BLOCK];
    for segment in 0..geometry.segments {
        let start = geometry.start(SegmentId(segment));
        let end = start.plus(geometry.segment_blocks);
        let mut at = start;
        while at < end {
            image.read(byte_of(at), &mut block);
            let Ok(header) = Header::decode(&block, &ID, at) else { break };
            all.push(own(Part::Header, at));
            for record in header.records(&block) {
                let part = if record.kind.is_page() { Part::Page } else { Part::Payload };
                let first = at.plus(1 + record.payload_at);
                let manifest = record.kind == Kind::Manifest;
                let found = |n| Found { part, addr: first.plus(n), crc: record.crc(n), manifest };
                all.extend((0..record.kind.payload(record.count)).map(found));
            }
            at = at.plus(header.blocks());
        }
    }
    all
}
