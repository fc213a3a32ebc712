//! One PDU or more of every opcode, byte by byte from the figures of RFC 7143 section 11.

use crate::base::crc::crc32c;
use crate::wire::iscsi::{Digests, Opcode, Receiver};
use crate::wire::mutate::hex;

/// Limits of the receiver that takes the goldens.
pub const DATA_MAX: u32 = 65536;
pub const AHS_MAX: u32 = 64;
pub const NONE: Digests = Digests::NONE;
pub const BOTH: Digests = Digests { header: true, data: true };

pub struct Golden {
    pub name: &'static str,
    pub digests: Digests,
    pub opcode: Opcode,
    pub ahs: u32,
    /// Offset and bytes of the data.
    pub data: (u32, u32),
    pub bytes: Vec<u8>,
}

impl Golden {
    pub fn receiver(&self) -> Receiver {
        Receiver::agreed(self.digests, DATA_MAX, AHS_MAX)
    }
}

/// `bytes` and their digest.
pub fn digested(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = crc32c(&bytes).to_le_bytes();
    bytes.extend(digest);
    bytes
}

pub fn golden(name: &str) -> Vec<u8> {
    goldens().into_iter().find(|g| g.name == name).unwrap_or_else(|| panic!("no golden {name}")).bytes
}

const READ_10: &str = "01 c1 0000 00 000000 0005000000000000 00001234 00001000 00000011 00000022
    28 00 00000100 00 0008 00 000000000000";
const WRITE_10: &str = "01 a1 0000 00 000005 4123000000000000 00001235 00000005 00000012 00000022
    2a 00 00000100 00 0001 00 000000000000";
const DATA_OUT: &str = "05 80 0000 00 000006 0005000000000000 00001235 00000077 00000000 00000023
    00000000 00000003 00002000 00000000";
const DATA_IN: &str = "25 83 00 00 00 000007 0000000000000000 00001234 ffffffff 00000023 00000013 00000032
    00000001 00001000 00000009";

pub fn goldens() -> Vec<Golden> {
    let mut all = Vec::new();
    let mut add = |name, digests: Digests, opcode, data: u32, bytes: Vec<u8>| {
        let ahs = u32::from(bytes[4]) * 4;
        let at = 48 + ahs + digests.header_len() as u32;
        all.push(Golden { name, digests, opcode, ahs, data: (at, data), bytes });
    };
    let plain = |header: &str| hex(header);
    add(
        "NOP-Out",
        NONE,
        Opcode::NopOut,
        4,
        plain(
            "40 80 0000 00 000004 0000000000000000 00000001 ffffffff
        00000010 00000020 00000000000000000000000000000000 70696e67",
        ),
    );
    add(
        "NOP-In",
        NONE,
        Opcode::NopIn,
        0,
        plain(
            "20 80 0000 00 000000 0003000000000000 ffffffff 00000099
        00000020 00000010 0000002f 000000000000000000000000",
        ),
    );
    add("READ(10)", NONE, Opcode::ScsiCommand, 0, plain(READ_10));
    add("READ(10) digests", BOTH, Opcode::ScsiCommand, 0, digested(plain(READ_10)));
    add("WRITE(10)", NONE, Opcode::ScsiCommand, 5, plain(&format!("{WRITE_10} 1122334455 000000")));
    let mut write = digested(plain(WRITE_10));
    write.extend(digested(hex("1122334455 000000")));
    add("WRITE(10) digests", BOTH, Opcode::ScsiCommand, 5, write);
    let long = "01 c1 0000 07 000000 0000000000000000 00001236 00001000 00000013 00000022
        7f 00 0000000000 18 0009 00 0000000000 0011 01 00 000102030405060708090a0b0c0d0e0f 0005 02 00 00010000";
    add("32-byte CDB", NONE, Opcode::ScsiCommand, 0, plain(long));
    add("32-byte CDB digests", BOTH, Opcode::ScsiCommand, 0, digested(plain(long)));
    add(
        "SCSI Response",
        NONE,
        Opcode::ScsiResponse,
        6,
        plain(
            "21 82 00 02 00 000006 0000000000000000 00001234
        00000000 00000023 00000013 00000032 00000002 00000000 00000200 0004 70000500 0000",
        ),
    );
    add(
        "Task request",
        NONE,
        Opcode::TaskRequest,
        0,
        plain(
            "42 81 0000 00 000000 0005000000000000 00000044 00001234
        00000013 00000023 00000011 00000000 0000000000000000",
        ),
    );
    add(
        "Task response",
        NONE,
        Opcode::TaskResponse,
        0,
        plain(
            "22 80 01 00 00 000000 0000000000000000 00000044 00000000
        00000024 00000013 00000032 000000000000000000000000",
        ),
    );
    add(
        "Login request",
        NONE,
        Opcode::LoginRequest,
        6,
        plain(
            "43 87 00 00 00 000006 80123456789a 0000 00000001 0007 0000
        00000001 00000002 00000000000000000000000000000000 413d62 633d64 0000",
        ),
    );
    add(
        "Login response",
        NONE,
        Opcode::LoginResponse,
        0,
        plain(
            "23 87 00 00 00 000000 80123456789a 1234 00000001 00000000
        00000005 00000001 00000020 0000 00000000000000000000",
        ),
    );
    add(
        "Login refused",
        NONE,
        Opcode::LoginResponse,
        0,
        plain(
            "23 04 00 00 00 000000 80123456789a 0000 00000001 00000000
        00000005 00000001 00000020 0201 00000000000000000000",
        ),
    );
    add(
        "Text request",
        NONE,
        Opcode::TextRequest,
        16,
        plain(
            "04 80 0000 00 000010 0000000000000000 00000009 ffffffff
        00000014 00000024 00000000000000000000000000000000 53656e64546172676574733d416c6c00",
        ),
    );
    add(
        "Text response",
        NONE,
        Opcode::TextResponse,
        2,
        plain(
            "24 40 0000 00 000002 0000000000000000 00000009 00000055
        00000025 00000014 00000033 000000000000000000000000 613d 0000",
        ),
    );
    add("Data-Out", NONE, Opcode::DataOut, 6, plain(&format!("{DATA_OUT} 010203040506 0000")));
    let mut data = digested(plain(DATA_OUT));
    data.extend(digested(hex("010203040506 0000")));
    add("Data-Out digests", BOTH, Opcode::DataOut, 6, data);
    add("Data-In", NONE, Opcode::DataIn, 7, plain(&format!("{DATA_IN} 01020304050607 00")));
    let mut data = digested(plain(DATA_IN));
    data.extend(digested(hex("01020304050607 00")));
    add("Data-In digests", BOTH, Opcode::DataIn, 7, data);
    add(
        "Logout request",
        NONE,
        Opcode::LogoutRequest,
        0,
        plain(
            "06 81 0000 00 000000 0000000000000000 0000000a 0007 0000
        00000015 00000025 00000000000000000000000000000000",
        ),
    );
    add(
        "Logout response",
        NONE,
        Opcode::LogoutResponse,
        0,
        plain(
            "26 80 00 00 00 000000 0000000000000000 0000000a 00000000
        00000026 00000015 00000034 00000000 0002 0014 00000000",
        ),
    );
    add(
        "SNACK",
        NONE,
        Opcode::Snack,
        0,
        plain(
            "10 81 0000 00 000000 0000000000000000 ffffffff ffffffff
        00000000 00000026 0000000000000000 00000020 00000006",
        ),
    );
    add(
        "R2T",
        NONE,
        Opcode::R2t,
        0,
        plain(
            "31 80 0000 00 000000 0005000000000000 00001235 00000077
        00000023 00000013 00000032 00000001 00002000 00010000",
        ),
    );
    add(
        "Async",
        NONE,
        Opcode::AsyncMessage,
        0,
        plain(
            "32 80 0000 00 000000 0000000000000000 ffffffff 00000000
        00000027 00000015 00000034 01 00 0000 0000 000a 00000000",
        ),
    );
    add(
        "Reject",
        NONE,
        Opcode::Reject,
        48,
        plain(&format!(
            "3f 80 04 00 00 000030 0000000000000000 ffffffff 00000000
        00000028 00000015 00000034 00000000 0000000000000000 {READ_10}"
        )),
    );
    all
}
