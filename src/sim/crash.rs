//! A power cut: what of the unflushed writes is left. Each is kept, dropped or torn at a 512-byte sector,
//! independently of the others, so a later write may survive while an earlier one does not.

use super::medium::Write;
use super::{Image, Medium};
use crate::base::rng::Rng;

/// Writes up to which every subset of them is tried at a crash point; above it, [`SUBSETS_DRAWN`] random ones.
pub const SUBSETS_ALL: usize = 10;
/// Random subsets per crash point where there are too many to try all.
pub const SUBSETS_DRAWN: usize = 64;

/// What becomes of one unflushed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// All of it is on the medium.
    Keep,
    /// Nothing of it is.
    Drop,
    /// Its first sectors are.
    Head(usize),
    /// Its last sectors, from this one on, are.
    Tail(usize),
    /// Its sectors are there or not, drawn one by one from this seed.
    Scatter(u64),
}

impl Fate {
    fn keeps(self, sector: usize) -> bool {
        match self {
            Fate::Keep => true,
            Fate::Drop => false,
            Fate::Head(n) => sector < n,
            Fate::Tail(n) => sector >= n,
            Fate::Scatter(seed) => {
                // One multiplication spreads the sector's number over the word; its top bit is the coin.
                let word = (seed ^ sector as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
            }
        }
    }

    /// A tear of `write`; one of a single sector can only be kept or dropped.
    fn tear(write: &Write, rng: &mut Rng) -> Fate {
        let sectors = write.sectors();
        if sectors < 2 {
            return if rng.chance(50) { Fate::Keep } else { Fate::Drop };
        }
        let border = 1 + rng.below(sectors as u64 - 1) as usize;
        match rng.below(4) {
            0 | 1 => Fate::Head(border),
            2 => Fate::Tail(border),
            _ => Fate::Scatter(rng.next_u64()),
        }
    }
}

/// How often each fate befell a write, and how often an order was turned round.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Toll {
    /// Unflushed writes that survived whole.
    pub kept: u64,
    /// Unflushed writes that left nothing.
    pub dropped: u64,
    /// Unflushed writes of which some sectors survived and some did not.
    pub torn: u64,
    /// Cuts in which a write survived, at least in part, while one submitted earlier did not whole.
    pub reordered: u64,
    /// Cuts in which at least one write was torn.
    pub torn_cuts: u64,
}

impl Toll {
    /// Adds another cut's counts.
    pub fn add(&mut self, other: Toll) {
        self.kept += other.kept;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.reordered += other.reordered;
        self.torn_cuts += other.torn_cuts;
    }
}

/// The fates of all unflushed writes of a medium, in the order of [`Medium::unflushed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fates(Vec<Fate>);

impl Fates {
    /// A cut at random: first what kind of cut, then each write.
    pub fn draw(medium: &Medium, rng: &mut Rng) -> Fates {
        let n = medium.unflushed_len();
        let kind = rng.below(8);
        let pivot = rng.below(n as u64 + 1) as usize;
        let share = [10, 50, 90][rng.below(3) as usize];
        let whole = |kept: bool| if kept { Fate::Keep } else { Fate::Drop };
        let fates = medium.unflushed().enumerate().map(|(i, write)| match kind {
            0 | 1 => whole(kind == 0),
            // In order, the last one torn.
            2 if i == pivot => Fate::tear(write, rng),
            2 => whole(i < pivot),
            // All but one; only one.
            3 | 4 => whole((i == pivot) == (kind == 4)),
            5 => Fate::tear(write, rng),
            _ if rng.chance(33) => Fate::tear(write, rng),
            _ => whole(rng.chance(share)),
        });
        Fates(fates.collect())
    }

    /// Every choice worth trying at this point: all subsets of whole writes where there are few, a random sample of
    /// them otherwise, and for each write one choice in which it is torn.
    pub fn all(medium: &Medium, rng: &mut Rng) -> Vec<Fates> {
        let n = medium.unflushed_len();
        let whole = |kept: bool| if kept { Fate::Keep } else { Fate::Drop };
        let mut choices = Vec::new();
        if n <= SUBSETS_ALL {
            choices.extend((0..1u32 << n).map(|set| Fates((0..n).map(|i| whole(set >> i & 1 == 1)).collect())));
        } else {
            choices.extend((0..SUBSETS_DRAWN).map(|_| Fates((0..n).map(|_| whole(rng.chance(50))).collect())));
        }
        for torn in 0..n {
            let fates = medium
                .unflushed()
                .enumerate()
                .map(|(i, write)| if i == torn { Fate::tear(write, rng) } else { whole(i < torn || rng.chance(50)) });
            choices.push(Fates(fates.collect()));
        }
        choices
    }

    /// The image after the cut, and its toll.
    pub fn cut(&self, medium: &Medium) -> (Image, Toll) {
        let mut image = medium.durable().clone();
        let mut toll = Toll::default();
        let mut whole_until_now = true;
        for (write, fate) in medium.unflushed().zip(&self.0) {
            match fate {
                Fate::Keep => {
                    toll.kept += 1;
                    write.put_all(&mut image);
                }
                Fate::Drop => toll.dropped += 1,
                torn => {
                    toll.torn += 1;
                    write.put(&mut image, |sector| torn.keeps(sector));
                }
            }
            toll.reordered |= u64::from(!whole_until_now && *fate != Fate::Drop);
            whole_until_now &= *fate == Fate::Keep;
        }
        toll.torn_cuts = u64::from(toll.torn > 0);
        (image, toll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Content;
    use crate::sim::medium::Piece;
    use std::collections::BTreeSet;

    fn medium(writes: u64) -> Medium {
        let mut cache = Image::new(64 << 10);
        let mut m = Medium::new(cache.clone(), false);
        for seq in 0..writes {
            m.submit(seq, vec![Piece { offset: seq * 1024, content: Content::all(&[1; 1024]) }]);
            m.execute(seq, &mut cache);
            m.complete(seq);
        }
        m
    }

    fn survivors(image: &Image, writes: u64) -> Vec<[bool; 2]> {
        let there = |offset| {
            let mut sector = [0u8; 512];
            image.read(offset, &mut sector);
            assert!(sector.iter().all(|b| *b == sector[0]), "a sector is never torn");
            sector[0] == 1
        };
        (0..writes).map(|w| [there(w * 1024), there(w * 1024 + 512)]).collect()
    }

    #[test]
    fn few_writes_are_enumerated_and_each_is_torn_once() {
        let m = medium(4);
        let choices = Fates::all(&m, &mut Rng::new(1));
        let states: BTreeSet<Vec<[bool; 2]>> = choices.iter().map(|c| survivors(&c.cut(&m).0, 4)).collect();
        let whole = states.iter().filter(|s| s.iter().all(|w| w[0] == w[1])).count();
        assert_eq!(whole, 16, "every subset");
        let torn: u64 = choices.iter().map(|c| c.cut(&m).1.torn).sum();
        assert!(torn >= 4, "{torn}");
        assert_eq!(Fates::all(&medium(11), &mut Rng::new(1)).len(), SUBSETS_DRAWN + 11);
    }

    #[test]
    fn random_cuts_keep_drop_tear_and_reorder() {
        let m = medium(6);
        let mut rng = Rng::new(9);
        let mut sum = Toll::default();
        for _ in 0..500 {
            let (image, toll) = Fates::draw(&m, &mut rng).cut(&m);
            let torn = survivors(&image, 6).iter().filter(|w| w[0] != w[1]).count() as u64;
            assert!(torn <= toll.torn, "only torn writes are split");
            assert_eq!(toll.kept + toll.dropped + toll.torn, 6);
            sum.add(toll);
        }
        assert!(sum.kept > 500 && sum.dropped > 500 && sum.torn > 300 && sum.reordered > 100, "{sum:?}");
    }
}
