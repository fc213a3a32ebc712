//! The Internet checksum (RFC 1071) over whole packets: eight lanes of 32 bits, which the compiler turns into vector
//! adds. Sums are kept in the machine's byte order, which the arithmetic allows, and stored as they are.

/// Adds `bytes` to a running sum. They must begin at an even distance from the start of what is summed.
pub(super) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total = sum + lanes.iter().sum::<u64>();
    let mut pairs = blocks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// The sum folded into 16 bits with end-around carry.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What goes into the checksum field of something that sums to `sum` with the field as zero.
pub(super) fn field(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// True when something that carries its checksum sums to `sum`.
pub(super) fn valid(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// The sum of the pseudo header of RFC 9293 section 3.1 and RFC 8200 section 8.1: `addresses` is the source address
/// followed by the destination.
pub(super) fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let [a, b] = (length as u16).to_be_bytes();
    add(0, addresses) + add(0, &[0, protocol, a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn agrees_with_the_definition_for_every_length() {
        let mut rng = crate::base::rng::Rng::new(3);
        let mut bytes = vec![0; 300];
        for len in 0..300 {
            rng.fill(&mut bytes);
            let sum = field(add(0, &bytes[..len]));
            assert_eq!(sum, slow(&bytes[..len]), "{len} bytes");
            if len % 2 == 0 {
                let whole = add(add(0, &bytes[..len]), &sum);
                assert!(valid(whole));
                assert!(!valid(add(whole, &[0, 1])));
            }
        }
        assert_eq!(field(add(0, &[0xff; 9000])), [0, 0]);
    }

    #[test]
    fn rfc_1071_section_3() {
        assert_eq!(field(add(0, &[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7])), [!0xdd, !0xf2]);
    }
}
