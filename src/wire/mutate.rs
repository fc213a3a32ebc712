//! Test input for the parsers: seeded, structure-aware mutation of golden messages, mixed with plain random bytes.

use crate::base::rng::Rng;

/// Bytes of a message written as hexadecimal digits with any white space between them.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits");
    digits.chunks(2).map(|d| u8::from_str_radix(core::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// Values at the borders of length and offset fields.
const EDGES: [u32; 18] = [
    0,
    1,
    3,
    4,
    7,
    8,
    23,
    24,
    72,
    128,
    152,
    153,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_fffe,
    0xffff_ffff,
    0x0010_0001,
];

/// An endless source of broken and unbroken messages.
pub(crate) struct Mutator {
    rng: Rng,
    goldens: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, goldens: Vec<Vec<u8>>) -> Mutator {
        assert!(!goldens.is_empty());
        Mutator { rng: Rng::new(seed), goldens, out: Vec::with_capacity(8192) }
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.out.clear();
        if self.rng.chance(10) {
            let len = self.rng.below(200) as usize;
            self.out.resize(len, 0);
            self.rng.fill(&mut self.out);
            return &self.out;
        }
        let pick = self.rng.below(self.goldens.len() as u64) as usize;
        self.out.extend_from_slice(&self.goldens[pick]);
        for _ in 0..self.rng.below(4) {
            self.mutate_once();
        }
        &self.out
    }

    fn mutate_once(&mut self) {
        let len = self.out.len() as u64;
        if len == 0 {
            return;
        }
        // Headers matter more than payload: half of the hits land in the first 32 bytes.
        let span = if self.rng.chance(50) { len.min(32) } else { len };
        let at = self.rng.below(span) as usize;
        match self.rng.below(6) {
            0 => self.out[at] ^= 1 << self.rng.below(8),
            1 => self.out[at] = self.rng.next_u64() as u8,
            2 | 3 => {
                let edge = EDGES[self.rng.below(EDGES.len() as u64) as usize].to_le_bytes();
                let width = [1, 2, 4][self.rng.below(3) as usize].min(self.out.len() - at);
                self.out[at..at + width].copy_from_slice(&edge[..width]);
            }
            4 => self.out.truncate(at),
            _ => {
                let other = self.rng.below(self.goldens.len() as u64) as usize;
                self.out.truncate(at);
                self.out.extend_from_slice(&self.goldens[other]);
            }
        }
    }
}
