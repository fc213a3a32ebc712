//! Designation descriptors (SPC-4, 7.8.5) and `TransportID`s of iSCSI ports (SPC-4, 7.6.4.6): how a device, a logical unit
//! and a port are named.

use super::Out;

/// Bytes of the longest iSCSI name (RFC 7143, 4.2.7.1).
pub const ISCSI_NAME_MAX: usize = 223;

/// What a designation descriptor names (ASSOCIATION).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Association {
    /// The logical unit.
    LogicalUnit = 0,
    /// The target port that received the command.
    TargetPort = 1,
    /// The SCSI target device.
    TargetDevice = 2,
}

/// PROTOCOL IDENTIFIER of iSCSI (SPC-4, 7.6.1).
pub const PROTOCOL_ISCSI: u8 = 5;

/// Designator types (SPC-4, table 625).
pub mod kind {
    /// T10 vendor ID based.
    pub const T10_VENDOR: u8 = 1;
    /// NAA.
    pub const NAA: u8 = 3;
    /// Relative target port identifier.
    pub const RELATIVE_PORT: u8 = 4;
    /// Target port group.
    pub const PORT_GROUP: u8 = 5;
    /// SCSI name string.
    pub const NAME_STRING: u8 = 8;
    /// UUID identifier.
    pub const UUID: u8 = 10;
}

const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF8: u8 = 3;

/// The NAA designator of a logical unit: locally assigned (NAA 3h, SPC-4, 7.8.5.6.4), from the UUID of its volume.
pub fn naa(uuid: &[u8; 16]) -> [u8; 8] {
    let mut high = [0; 8];
    let mut low = [0; 8];
    high.copy_from_slice(&uuid[..8]);
    low.copy_from_slice(&uuid[8..]);
    // Both halves count, so that two UUIDs that share one of them get different names.
    let mixed = u64::from_be_bytes(high) ^ u64::from_be_bytes(low).rotate_left(17);
    (mixed & (u64::MAX >> 4) | 3 << 60).to_be_bytes()
}

fn head(out: &mut Out<'_>, code_set: u8, association: Association, kind: u8, len: usize) {
    let port = association != Association::LogicalUnit;
    out.u8(if port { PROTOCOL_ISCSI << 4 } else { 0 } | code_set);
    out.u8(if port { 0x80 } else { 0 } | (association as u8) << 4 | kind);
    out.u8(0);
    out.u8(u8::try_from(len).expect("a designator has at most 255 bytes"));
}

/// Emits an NAA designator of the logical unit.
pub fn put_naa(out: &mut Out<'_>, naa: [u8; 8]) {
    head(out, BINARY, Association::LogicalUnit, kind::NAA, 8);
    out.put(&naa);
}

/// Emits a T10 vendor ID designator: vendor (8 characters) and something of the vendor's choice.
pub fn put_t10(out: &mut Out<'_>, vendor: &str, specific: &str) {
    let specific = &specific[..specific.floor_char_boundary(128)];
    head(out, ASCII, Association::LogicalUnit, kind::T10_VENDOR, 8 + specific.len());
    out.ascii(vendor, 8);
    out.ascii(specific, specific.len());
}

/// Emits a UUID designator (SPC-5, 7.7.6.11).
pub fn put_uuid(out: &mut Out<'_>, uuid: &[u8; 16]) {
    head(out, BINARY, Association::LogicalUnit, kind::UUID, 18);
    out.put(&[0x10, 0]);
    out.put(uuid);
}

/// Emits the relative identifier of the port the command came in at.
pub fn put_relative_port(out: &mut Out<'_>, port: u16) {
    head(out, BINARY, Association::TargetPort, kind::RELATIVE_PORT, 4);
    out.u16(0);
    out.u16(port);
}

/// Emits the target port group of that port.
pub fn put_port_group(out: &mut Out<'_>, group: u16) {
    head(out, BINARY, Association::TargetPort, kind::PORT_GROUP, 4);
    out.u16(0);
    out.u16(group);
}

/// Bytes of a SCSI name string: the name, zeroes to a multiple of four, at least one (SPC-4, 7.8.5.11).
fn padded(len: usize) -> usize {
    (len + 1).next_multiple_of(4)
}

/// Emits the name of the target device.
pub fn put_device_name(out: &mut Out<'_>, name: &str) {
    head(out, UTF8, Association::TargetDevice, kind::NAME_STRING, padded(name.len()));
    out.put(name.as_bytes());
    out.zeroes(padded(name.len()) - name.len());
}

/// Emits the name of a target port: `name,t,0xTAG` with the tag of its portal group (RFC 7143, 4.2.9).
pub fn put_port_name(out: &mut Out<'_>, name: &str, group: u16) {
    let mut tag = *b",t,0x0000";
    for (at, digit) in tag[5..].iter_mut().enumerate() {
        let nibble = (group >> (12 - 4 * at)) & 0xf;
        *digit = b"0123456789abcdef"[usize::from(nibble)];
    }
    let len = name.len() + tag.len();
    head(out, UTF8, Association::TargetPort, kind::NAME_STRING, padded(len));
    out.put(name.as_bytes());
    out.put(&tag);
    out.zeroes(padded(len) - len);
}

/// Why a designation descriptor or `TransportID` can not be used: its byte, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bad(pub u16);

/// A `TransportID` of an iSCSI initiator port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportId<'a> {
    /// Initiator name.
    pub name: &'a str,
    /// ISID; `None`: every port of that initiator (format 00b).
    pub isid: Option<[u8; 6]>,
    /// Bytes it takes.
    pub len: usize,
}

/// Parses the `TransportID` that `bytes` start with (SPC-4, tables 431 and 432).
pub fn transport_id(bytes: &[u8]) -> Result<TransportId<'_>, Bad> {
    let head = bytes.get(..4).ok_or(Bad(0))?;
    if head[0] & 0x0f != PROTOCOL_ISCSI {
        return Err(Bad(0));
    }
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let text = bytes.get(4..4 + len).filter(|t| t.len() >= 20 && t.len() % 4 == 0).ok_or(Bad(2))?;
    let end = text.iter().position(|b| *b == 0).ok_or(Bad(4))?;
    let text = core::str::from_utf8(&text[..end]).map_err(|_| Bad(4))?;
    let len = len + 4;
    match head[0] >> 6 {
        0 if text.is_empty() || text.len() > ISCSI_NAME_MAX || text.contains(",i,0x") => Err(Bad(4)),
        0 => Ok(TransportId { name: text, isid: None, len }),
        1 => {
            let (name, digits) = text.rsplit_once(",i,0x").ok_or(Bad(4))?;
            if name.is_empty() || name.len() > ISCSI_NAME_MAX || digits.len() != 12 || !digits.is_ascii() {
                return Err(Bad(4));
            }
            let mut isid = [0; 6];
            for (byte, at) in isid.iter_mut().zip((0..12).step_by(2)) {
                let pair = &digits[at..at + 2];
                if pair.starts_with('+') {
                    return Err(Bad(4));
                }
                *byte = u8::from_str_radix(pair, 16).map_err(|_| Bad(4))?;
            }
            Ok(TransportId { name, isid: Some(isid), len })
        }
        _ => Err(Bad(0)),
    }
}

/// Emits the `TransportID` of an initiator port (format 01b): name and ISID.
pub fn put_transport_id(out: &mut Out<'_>, name: &str, isid: [u8; 6]) {
    let len = (name.len() + 5 + 12 + 1).next_multiple_of(4).max(20);
    out.u8(0x40 | PROTOCOL_ISCSI);
    out.u8(0);
    out.u16(len as u16);
    out.put(name.as_bytes());
    out.put(b",i,0x");
    for byte in isid {
        out.u8(b"0123456789abcdef"[usize::from(byte >> 4)]);
        out.u8(b"0123456789abcdef"[usize::from(byte & 15)]);
    }
    out.zeroes(len - name.len() - 17);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::hex;

    fn emitted(f: impl Fn(&mut Out<'_>)) -> Vec<u8> {
        let mut bytes = [0xee; 300];
        let mut out = Out::new(&mut bytes);
        f(&mut out);
        let len = out.len();
        bytes[..len].to_vec()
    }

    #[test]
    fn descriptors_have_their_standard_bytes() {
        let uuid: [u8; 16] = core::array::from_fn(|i| i as u8);
        assert_eq!(naa(&uuid)[0] >> 4, 3);
        assert_ne!(naa(&uuid), naa(&[0; 16]));
        assert_eq!(emitted(|o| put_naa(o, [0x3a; 8])), hex("01 03 00 08 3a3a3a3a3a3a3a3a"));
        assert_eq!(emitted(|o| put_uuid(o, &uuid)), hex("01 0a 00 12 1000 000102030405060708090a0b0c0d0e0f"));
        assert_eq!(emitted(|o| put_relative_port(o, 3)), hex("51 94 00 04 0000 0003"));
        assert_eq!(emitted(|o| put_port_group(o, 0x102)), hex("51 95 00 04 0000 0102"));
        assert_eq!(emitted(|o| put_t10(o, "Pollux", "ab")), hex("02 01 00 0a 506f6c6c75782020 6162"));
        assert_eq!(emitted(|o| put_device_name(o, "iqn.abc")), hex("53 a8 00 08 69716e2e61626300"));
        assert_eq!(
            emitted(|o| put_port_name(o, "iqn.abc", 0x1a)),
            hex("53 98 00 14 69716e2e616263 2c742c3078 30303161 00000000")
        );
    }

    #[test]
    fn no_transport_id_is_too_strange() {
        let golden = emitted(|o| put_transport_id(o, "iqn.2024-01.io.pollux:host", [0x80, 1, 2, 3, 4, 5]));
        let mut mutator = crate::wire::mutate::Mutator::new(3, vec![golden]);
        for _ in 0..400_000 {
            let input = mutator.next();
            if let Ok(id) = transport_id(input) {
                assert!(id.len <= input.len() && id.name.len() <= ISCSI_NAME_MAX);
            }
        }
    }

    #[test]
    fn transport_ids_survive_the_round_trip_and_bad_ones_are_named() {
        let name = "iqn.2024-01.io.pollux:host";
        let isid = [0x80, 1, 2, 0xab, 0xcd, 0xef];
        let bytes = emitted(|o| put_transport_id(o, name, isid));
        assert!(bytes.len().is_multiple_of(4));
        let id = transport_id(&bytes).unwrap();
        assert_eq!((id.name, id.isid, id.len), (name, Some(isid), bytes.len()));
        for cut in 0..bytes.len() {
            assert!(transport_id(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = bytes.clone();
        other[0] = 0x46;
        assert_eq!(transport_id(&other), Err(Bad(0)));
        let mut whole = bytes.clone();
        whole[0] = 5;
        assert_eq!(transport_id(&whole), Err(Bad(4)), "a port in a device's format");
        let device = emitted(|o| {
            o.put(&[5, 0, 0, 28]);
            o.put(name.as_bytes());
            o.zeroes(28 - name.len());
        });
        assert_eq!(transport_id(&device).unwrap(), TransportId { name, isid: None, len: 32 });
    }
}
