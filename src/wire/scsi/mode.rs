//! Mode pages of a block device (SPC-4, 7.5; SBC-3, 6.5): what MODE SENSE reports and MODE SELECT changes.

use super::Out;

/// Page codes.
pub mod page {
    /// Read-Write Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x01;
    /// Disconnect-Reconnect.
    pub const DISCONNECT: u8 = 0x02;
    /// Caching.
    pub const CACHING: u8 = 0x08;
    /// Control; subpage 01h is Control Extension.
    pub const CONTROL: u8 = 0x0a;
    /// Informational Exceptions Control; subpage 02h is Logical Block Provisioning.
    pub const EXCEPTIONS: u8 = 0x1c;
    /// All pages.
    pub const ALL: u8 = 0x3f;
    /// All subpages.
    pub const ALL_SUBPAGES: u8 = 0xff;
}

/// Page control of MODE SENSE: which values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// As they are.
    Current,
    /// Ones where a bit can be changed.
    Changeable,
    /// As they are after a reset.
    Default,
}

/// What a MODE SELECT can change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Modes {
    /// `D_SENSE`: sense data in descriptor format.
    pub descriptor_sense: bool,
    /// SWP: software write protect.
    pub write_protect: bool,
}

/// What else the pages show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// WCE: completed writes may be in a volatile cache.
    pub volatile_cache: bool,
    /// Soft threshold of the pool, in percent of its space that is used; 0: none.
    pub threshold_percent: u8,
}

/// The pages, ascending: code and subpage.
const PAGES: [(u8, u8); 7] = [
    (page::ERROR_RECOVERY, 0),
    (page::DISCONNECT, 0),
    (page::CACHING, 0),
    (page::CONTROL, 0),
    (page::CONTROL, 1),
    (page::EXCEPTIONS, 0),
    (page::EXCEPTIONS, 2),
];

/// Bytes of the longest page.
const PAGE_MAX: usize = 32;
/// More than all pages with header and block descriptor take.
pub const MODE_DATA_MAX: usize = 256;

/// Bytes of a page, header included.
fn length(code: u8, subpage: u8) -> usize {
    match (code, subpage) {
        (page::DISCONNECT, _) => 16,
        (page::CACHING, _) => 20,
        (page::CONTROL, 1) => 32,
        (page::EXCEPTIONS, 2) => 24,
        _ => 12,
    }
}

/// The bytes of a page.
fn bytes(code: u8, subpage: u8, values: Values, modes: Modes, facts: Facts) -> [u8; PAGE_MAX] {
    let mut page = [0; PAGE_MAX];
    let len = length(code, subpage);
    if subpage == 0 {
        (page[0], page[1]) = (code, (len - 2) as u8);
    } else {
        (page[0], page[1], page[3]) = (0x40 | code, subpage, (len - 4) as u8);
    }
    let modes = match values {
        Values::Current => modes,
        Values::Default => Modes::default(),
        Values::Changeable => {
            if (code, subpage) == (page::CONTROL, 0) {
                // `D_SENSE` and SWP.
                (page[2], page[4]) = (0x04, 0x08);
            }
            return page;
        }
    };
    match (code, subpage) {
        // AWRE, ARRE: the medium repairs itself.
        (page::ERROR_RECOVERY, _) => page[2] = 0xc0,
        (page::CACHING, _) => page[2] = u8::from(facts.volatile_cache) << 2,
        (page::CONTROL, 0) => {
            page[2] = u8::from(modes.descriptor_sense) << 2;
            // Commands may be reordered; BUSY TIMEOUT PERIOD unlimited.
            page[3] = 0x10;
            page[4] = u8::from(modes.write_protect) << 3;
            page[8..10].fill(0xff);
        }
        // MRIE 6: exceptions are reported when asked for (REQUEST SENSE) and as unit attentions; nothing is predicted.
        (page::EXCEPTIONS, 0) => page[3] = 6,
        (page::EXCEPTIONS, 2) if facts.threshold_percent != 0 => {
            // One threshold: ENABLED, percentage, armed when space that is used rises; of used resources.
            page[16..20].copy_from_slice(&[0x80 | 0x10 | 0x01, 0x02, 0, 0]);
            page[20..24].copy_from_slice(&u32::from(facts.threshold_percent).to_be_bytes());
        }
        _ => {}
    }
    page
}

/// Emits the pages that `code` and `subpage` of a MODE SENSE name; false when there is no such page.
pub fn put_pages(out: &mut Out<'_>, code: u8, subpage: u8, values: Values, modes: Modes, facts: Facts) -> bool {
    let before = out.len();
    for (c, s) in PAGES {
        let named = code == c || code == page::ALL;
        if named && (subpage == s || subpage == page::ALL_SUBPAGES) {
            out.put(&bytes(c, s, values, modes, facts)[..length(c, s)]);
        }
    }
    out.len() > before
}

/// Why a MODE SELECT is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// The list ends within a header, descriptor or page.
    Length,
    /// A field, by its byte in the list.
    Field(u16),
}

/// Reads the parameter list of MODE SELECT(6) or (10): the modes after it. Every page must be one of ours, whole, and the
/// same as it is now but for what can be changed.
pub fn select(list: &[u8], ten: bool, now: Modes, facts: Facts) -> Result<Modes, Bad> {
    let head = if ten { 8 } else { 4 };
    if list.is_empty() {
        return Ok(now);
    }
    let header = list.get(..head).ok_or(Bad::Length)?;
    let descriptors = if ten { usize::from(header[6]) << 8 | usize::from(header[7]) } else { usize::from(header[3]) };
    if !matches!(descriptors, 0 | 8 | 16) || (descriptors == 16 && !ten) {
        return Err(Bad::Field(head as u16 - 1));
    }
    let mut at = head + descriptors;
    if list.len() < at {
        return Err(Bad::Length);
    }
    let mut modes = now;
    while at < list.len() {
        let rest = &list[at..];
        let (code, short) = (rest[0] & 0x3f, rest[0] & 0x40 == 0);
        let subpage = if short { 0 } else { *rest.get(1).ok_or(Bad::Length)? };
        if !PAGES.contains(&(code, subpage)) || code == page::ALL {
            return Err(Bad::Field(at as u16));
        }
        let len = length(code, subpage);
        let given = rest.get(..len).ok_or(Bad::Length)?;
        let current = bytes(code, subpage, Values::Current, modes, facts);
        let changeable = bytes(code, subpage, Values::Changeable, modes, facts);
        let header = if short { 2 } else { 4 };
        for byte in 0..len {
            // The PS bit of the first byte is reserved here; header bytes are not maskable.
            let mask = if byte < header { 0 } else { changeable[byte] };
            let value = if byte == 0 { given[0] & 0x7f } else { given[byte] };
            if (value ^ current[byte]) & !mask != 0 {
                return Err(Bad::Field((at + byte) as u16));
            }
        }
        if (code, subpage) == (page::CONTROL, 0) {
            modes.descriptor_sense = given[2] & 0x04 != 0;
            modes.write_protect = given[4] & 0x08 != 0;
        }
        at += len;
    }
    Ok(modes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::Mutator;

    fn pages(code: u8, subpage: u8, values: Values, modes: Modes) -> Option<Vec<u8>> {
        let mut room = [0; MODE_DATA_MAX];
        let mut out = Out::new(&mut room);
        let found = put_pages(&mut out, code, subpage, values, modes, Facts::default());
        let len = out.len();
        found.then(|| room[..len].to_vec())
    }

    #[test]
    fn pages_come_alone_together_and_with_subpages() {
        let control = pages(page::CONTROL, 0, Values::Current, Modes::default()).unwrap();
        assert_eq!(control, [0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
        let extension = pages(page::CONTROL, 1, Values::Current, Modes::default()).unwrap();
        assert_eq!((extension[..4].to_vec(), extension.len()), (vec![0x4a, 1, 0, 28], 32));
        let all = pages(page::ALL, 0, Values::Current, Modes::default()).unwrap();
        assert_eq!(all.len(), 12 + 16 + 20 + 12 + 12);
        let every = pages(page::ALL, 0xff, Values::Current, Modes::default()).unwrap();
        assert_eq!(every.len(), all.len() + 32 + 24);
        assert!(pages(0x33, 0, Values::Current, Modes::default()).is_none());
        assert!(pages(page::CACHING, 4, Values::Current, Modes::default()).is_none());
        let changeable = pages(page::CONTROL, 0, Values::Changeable, Modes::default()).unwrap();
        assert_eq!(changeable, [0x0a, 10, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_select_changes_what_can_be_changed_and_nothing_else() {
        let facts = Facts::default();
        let set = Modes { descriptor_sense: true, write_protect: true };
        for ten in [false, true] {
            let head = if ten { 8 } else { 4 };
            let mut list = vec![0; head];
            list.extend(pages(page::CONTROL, 0, Values::Current, set).unwrap());
            assert_eq!(select(&list, ten, Modes::default(), facts), Ok(set));
            for cut in 1..list.len() {
                let got = select(&list[..cut], ten, Modes::default(), facts);
                assert_eq!(got, if cut == head { Ok(Modes::default()) } else { Err(Bad::Length) }, "cut at {cut}");
            }
            for byte in head..list.len() {
                for bit in 0..8 {
                    let mut bad = list.clone();
                    bad[byte] ^= 1 << bit;
                    let changes = [(head, 7), (head + 2, 2), (head + 4, 3)].contains(&(byte, bit));
                    let got = select(&bad, ten, Modes::default(), facts);
                    assert_eq!(got.is_ok(), changes, "byte {byte} bit {bit}: {got:?}");
                }
            }
        }
        assert_eq!(select(&[], false, set, facts), Ok(set));
        assert_eq!(select(&[0, 0, 0, 7], false, set, facts), Err(Bad::Field(3)));
    }

    #[test]
    fn no_list_is_too_strange() {
        let mut golden = vec![0; 4];
        golden.extend(pages(page::ALL, 0xff, Values::Current, Modes::default()).unwrap());
        let mut mutator = Mutator::new(5, vec![golden]);
        for _ in 0..400_000 {
            let input = mutator.next();
            let _ = select(input, input.first().is_some_and(|b| b & 1 != 0), Modes::default(), Facts::default());
        }
    }
}
