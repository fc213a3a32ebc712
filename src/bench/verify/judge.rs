//! Is this block what it may be? If not: what is it, in one line. Pure: bytes and expectations in, verdict out.

use super::stamp::{Diagnosis, SECTOR, Sector, Stamp, diagnose, inspect, show_operation};
use std::fmt::{self, Write};

/// What a read of one block may return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Oldest generation; 0: the block may hold whatever was there before anybody wrote.
    pub floor: u32,
    /// Newest generation; 0: we never wrote here.
    pub ceiling: u32,
    /// The floor was acknowledged, not just seen by a read.
    pub acknowledged: bool,
}

/// The judgement on one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Whole and allowed; this generation.
    Holds(u32),
    /// Nothing of ours, where nothing of ours is certain to be.
    Unknown,
    /// Wrong.
    Damaged(Box<Damage>),
}

/// What kind of wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DamageKind {
    /// Nothing where data was acknowledged.
    Lost,
    /// An older generation than what was acknowledged or seen.
    Stale,
    /// Parts from different writes.
    Torn,
    /// Data written for another block of this volume.
    Misdirected,
    /// Data written for another volume.
    OtherVolume,
    /// Data of another verify run, older than ours.
    OtherWriter,
    /// Bits differ from what was written.
    BitFlip,
    /// Data nobody in a verify run wrote.
    Garbage,
    /// A generation that was never sent to this block.
    Future,
}

impl DamageKind {
    /// One word, stable: the key in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DamageKind::Lost => "lost",
            DamageKind::Stale => "stale",
            DamageKind::Torn => "torn",
            DamageKind::Misdirected => "misdirected",
            DamageKind::OtherVolume => "other_volume",
            DamageKind::OtherWriter => "other_writer",
            DamageKind::BitFlip => "bit_flip",
            DamageKind::Garbage => "garbage",
            DamageKind::Future => "future",
        }
    }
}

/// A block that is not what it must be. Displays as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The block, in logical blocks.
    pub lba: u64,
    /// What kind of wrong.
    pub kind: DamageKind,
    /// What was allowed.
    pub allowed: Allowed,
    /// What it is instead.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Allowed { floor, ceiling, acknowledged } = self.allowed;
        write!(f, "LBA {}: {}: {}; ", self.lba, self.kind.name().replace('_', " "), self.found)?;
        let certain = if acknowledged { "acknowledged" } else { "read before" };
        match (floor, ceiling) {
            (0, 0) => write!(f, "nothing was ever written here"),
            (0, _) => write!(f, "generations up to {ceiling} were sent, none acknowledged"),
            (_, _) if floor == ceiling => write!(f, "generation {floor} was {certain}"),
            (_, _) => write!(f, "generation {floor} was {certain}, up to {ceiling} sent"),
        }
    }
}

/// Whose stamps count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judge {
    /// The volume under test.
    pub volume: u64,
    /// The writer of this run (or of its log).
    pub writer: u64,
}

/// A sector against its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    /// Ours, for this place.
    Ours {
        generation: u32,
        operation: u64,
    },
    Zeroes,
    Garbage,
    Broken,
    OtherVolume(Stamp),
    Misdirected(Stamp),
    OtherWriter(Stamp),
}

impl Judge {
    /// Judges one logical block: `data` is its bytes, `lba` its number.
    pub fn judge(&self, lba: u64, data: &[u8], allowed: Allowed) -> Verdict {
        let per_block = (data.len() / SECTOR) as u64;
        let first = self.piece(lba * per_block, &data[..SECTOR]);
        let (mut uniform, mut same_data) = (true, true);
        for (at, sector) in data.chunks_exact(SECTOR).enumerate().skip(1) {
            let piece = self.piece(lba * per_block + at as u64, sector);
            uniform &= std::mem::discriminant(&piece) == std::mem::discriminant(&first);
            same_data &= piece == first;
        }
        let damaged = |kind, found| Verdict::Damaged(Box::new(Damage { lba, kind, allowed, found }));
        if let (Piece::Ours { generation, operation }, true) = (first, same_data) {
            return match generation {
                g if g < allowed.floor => damaged(DamageKind::Stale, holds(g, operation)),
                g if g > allowed.ceiling => damaged(DamageKind::Future, holds(g, operation)),
                g => Verdict::Holds(g),
            };
        }
        if allowed.floor == 0 && !self.has_trace(lba * per_block, data) {
            return Verdict::Unknown;
        }
        let (kind, found) = self.explain(lba * per_block, data, uniform);
        damaged(kind, found)
    }

    fn piece(&self, sector: u64, data: &[u8]) -> Piece {
        match inspect(data) {
            Sector::Valid(s) if s.volume != self.volume => Piece::OtherVolume(s),
            Sector::Valid(s) if s.writer != self.writer => Piece::OtherWriter(s),
            Sector::Valid(s) if s.sector != sector => Piece::Misdirected(s),
            Sector::Valid(s) => Piece::Ours { generation: s.generation, operation: s.operation },
            Sector::Broken => Piece::Broken,
            Sector::Zeroes => Piece::Zeroes,
            Sector::Foreign => Piece::Garbage,
        }
    }

    /// True when any sector bears our writer's number: then even a block we know nothing of is wrong unless whole.
    fn has_trace(&self, sector: u64, data: &[u8]) -> bool {
        data.chunks_exact(SECTOR).zip(sector..).any(|(bytes, sector)| match self.piece(sector, bytes) {
            Piece::Ours { .. } | Piece::Misdirected(_) => true,
            Piece::OtherVolume(stamp) => stamp.writer == self.writer,
            Piece::Broken => diagnose(bytes).is_some_and(|d| d.stamp.writer == self.writer),
            Piece::OtherWriter(_) | Piece::Zeroes | Piece::Garbage => false,
        })
    }

    /// Names the damage of a block that is neither whole nor unknown.
    fn explain(&self, sector: u64, data: &[u8], uniform: bool) -> (DamageKind, String) {
        let pieces: Vec<Piece> =
            data.chunks_exact(SECTOR).zip(sector..).map(|(bytes, sector)| self.piece(sector, bytes)).collect();
        // Flipped bits explain a block better than the seams they make.
        for (at, bytes) in data.chunks_exact(SECTOR).enumerate() {
            let suspect = matches!(pieces[at], Piece::Broken | Piece::Garbage);
            if let Some(d) = suspect.then(|| diagnose(bytes)).flatten() {
                return (DamageKind::BitFlip, flipped(at, &d));
            }
        }
        if !uniform || matches!(pieces[0], Piece::Ours { .. }) {
            return (DamageKind::Torn, seams(&pieces));
        }
        let per_block = (data.len() / SECTOR) as u64;
        match pieces[0] {
            Piece::Zeroes => (DamageKind::Lost, "reads as zeroes".into()),
            Piece::OtherVolume(s) => {
                let from = show_operation(s.operation);
                (
                    DamageKind::OtherVolume,
                    format!("holds LBA {} of volume {:016x} (operation {from})", s.sector / per_block, s.volume),
                )
            }
            Piece::Misdirected(s) => (
                DamageKind::Misdirected,
                format!("holds LBA {}, {}", s.sector / per_block, generation(s.generation, s.operation)),
            ),
            Piece::OtherWriter(s) => (
                DamageKind::OtherWriter,
                format!("holds {} of another run ({:016x})", generation(s.generation, s.operation), s.writer),
            ),
            Piece::Ours { .. } | Piece::Broken | Piece::Garbage => {
                (DamageKind::Garbage, "holds data that bears no stamp".into())
            }
        }
    }
}

fn generation(generation: u32, operation: u64) -> String {
    format!("generation {generation} (operation {})", show_operation(operation))
}

fn holds(g: u32, operation: u64) -> String {
    format!("holds {}", generation(g, operation))
}

fn flipped(at: usize, d: &Diagnosis) -> String {
    let (bits, byte) = (d.bits, at * SECTOR + usize::from(d.byte));
    let from = generation(d.stamp.generation, d.stamp.operation);
    format!(
        "{bits} bit{} of {from} differ{}, first at byte {byte}",
        if bits == 1 { "" } else { "s" },
        if bits == 1 { "s" } else { "" }
    )
}

/// `sectors 0-3 generation 7 (operation 1.99), 4-7 zeroes`
fn seams(pieces: &[Piece]) -> String {
    let describe = |piece: &Piece| match piece {
        Piece::Ours { generation: g, operation } => generation(*g, *operation),
        Piece::Zeroes => "zeroes".into(),
        Piece::Garbage | Piece::Broken => "data without a stamp".into(),
        Piece::OtherVolume(s) => format!("volume {:016x}", s.volume),
        Piece::Misdirected(s) => format!("sector {}, {}", s.sector, generation(s.generation, s.operation)),
        Piece::OtherWriter(s) => format!("another run's generation {}", s.generation),
    };
    let mut out = String::from("sectors ");
    let mut from = 0;
    for to in 1..=pieces.len() {
        let same = to < pieces.len()
            && (pieces[to] == pieces[from]
                || matches!((pieces[to], pieces[from]), (Piece::Misdirected(_), Piece::Misdirected(_))));
        if same {
            continue;
        }
        let place = if to - from == 1 { format!("{from}") } else { format!("{from}-{}", to - 1) };
        let comma = if from == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}{place} {}", describe(&pieces[from]));
        from = to;
    }
    out
}

#[cfg(test)]
mod tests;
