//! What initiator and target agree on: every operational key of RFC 7143 chapter 13, the result function of each, and
//! the values that hold when a key is never spoken of.

use super::config::Options;
use crate::wire::iscsi::value::{self, CRC32C, IRRELEVANT, NONE, REJECT};
use crate::wire::iscsi::{DATA_LIMIT, Digests, Key, LOGIN_DATA_MAX};

/// The agreed values. Those of a session's leading connection hold for the session; digests and segment lengths are each
/// connection's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Params {
    /// `HeaderDigest` and `DataDigest`.
    pub digests: Digests,
    /// `MaxConnections`.
    pub max_connections: u16,
    /// `InitialR2T`.
    pub initial_r2t: bool,
    /// `ImmediateData`.
    pub immediate_data: bool,
    /// `MaxBurstLength`, bytes.
    pub max_burst: u32,
    /// `FirstBurstLength`, bytes; at most `max_burst`.
    pub first_burst: u32,
    /// `MaxOutstandingR2T`.
    pub max_outstanding_r2t: u16,
    /// `MaxRecvDataSegmentLength` of the initiator: what may be sent, bytes.
    pub send_max: u32,
    /// `DefaultTime2Wait`, seconds.
    pub time_to_wait: u16,
    /// `DefaultTime2Retain`, seconds.
    pub time_to_retain: u16,
}

impl Default for Params {
    /// What holds without negotiation.
    fn default() -> Params {
        Params {
            digests: Digests::NONE,
            max_connections: 1,
            initial_r2t: true,
            immediate_data: true,
            max_burst: 256 << 10,
            first_burst: 64 << 10,
            max_outstanding_r2t: 1,
            send_max: LOGIN_DATA_MAX,
            time_to_wait: 2,
            time_to_retain: 20,
        }
    }
}

/// What a negotiation depends on besides its key and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// This side's wishes.
    pub options: &'a Options,
    /// Digests that the target insists on.
    pub insist: Digests,
    /// A discovery session: keys of data transfer mean nothing.
    pub discovery: bool,
    /// The first connection of its session.
    pub leading: bool,
}

/// The answer to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Nothing: a declaration.
    None,
    /// A fixed word.
    Word(&'static str),
    /// A number.
    Number(u32),
}

fn yes(value: bool) -> Answer {
    Answer::Word(if value { "Yes" } else { "No" })
}

/// Shortest segments and bursts, bytes.
const SEGMENT_MIN: u32 = 512;

impl Params {
    /// Takes an offer of one key and says what the answer is; `None` for keys that are not operational parameters.
    pub fn offer(&mut self, key: Key, offer: &str, rules: &Rules<'_>) -> Option<Answer> {
        let ours = rules.options;
        let of_data = matches!(
            key,
            Key::MaxConnections
                | Key::InitialR2t
                | Key::ImmediateData
                | Key::MaxBurstLength
                | Key::FirstBurstLength
                | Key::MaxOutstandingR2t
                | Key::DataPduInOrder
                | Key::DataSequenceInOrder
        );
        let of_session =
            of_data || matches!(key, Key::DefaultTime2Wait | Key::DefaultTime2Retain | Key::ErrorRecoveryLevel);
        if of_data && rules.discovery {
            return Some(Answer::Word(IRRELEVANT));
        }
        if of_session && !rules.leading {
            // They were settled on the leading connection (the "Use: LO" of chapter 13).
            return Some(Answer::Word(REJECT));
        }
        let number = |low, high| value::number_within(offer, low, high);
        let answer = match key {
            Key::HeaderDigest => digest(offer, rules.insist.header).map(|d| {
                self.digests.header = d;
                Answer::Word(if d { CRC32C } else { NONE })
            }),
            Key::DataDigest => digest(offer, rules.insist.data).map(|d| {
                self.digests.data = d;
                Answer::Word(if d { CRC32C } else { NONE })
            }),
            Key::MaxConnections => number(1, 65535).map(|n| {
                self.max_connections = (n as u16).min(ours.max_connections_per_session);
                Answer::Number(u32::from(self.max_connections))
            }),
            Key::InitialR2t => value::boolean(offer).map(|b| {
                self.initial_r2t = b || ours.initial_r2t;
                yes(self.initial_r2t)
            }),
            Key::ImmediateData => value::boolean(offer).map(|b| {
                self.immediate_data = b && ours.immediate_data;
                yes(self.immediate_data)
            }),
            Key::MaxBurstLength => number(SEGMENT_MIN, DATA_LIMIT).map(|n| {
                self.max_burst = n.min(ours.max_burst_bytes);
                Answer::Number(self.max_burst)
            }),
            Key::FirstBurstLength => number(SEGMENT_MIN, DATA_LIMIT).map(|n| {
                self.first_burst = n.min(ours.first_burst_bytes);
                Answer::Number(self.first_burst)
            }),
            Key::MaxOutstandingR2t => number(1, 65535).map(|n| {
                self.max_outstanding_r2t = (n as u16).min(ours.max_outstanding_r2t);
                Answer::Number(u32::from(self.max_outstanding_r2t))
            }),
            Key::DefaultTime2Wait => number(0, 3600).map(|n| {
                self.time_to_wait = (n as u16).max(ours.time_to_wait_s);
                Answer::Number(u32::from(self.time_to_wait))
            }),
            Key::DefaultTime2Retain => number(0, 3600).map(|n| {
                self.time_to_retain = (n as u16).min(ours.time_to_retain_s);
                Answer::Number(u32::from(self.time_to_retain))
            }),
            // Either side's Yes settles it, and this side wants order.
            Key::DataPduInOrder | Key::DataSequenceInOrder => value::boolean(offer).map(|_| yes(true)),
            // The lower level wins, and this side has only the lowest.
            Key::ErrorRecoveryLevel => number(0, 2).map(|_| Answer::Number(0)),
            Key::MaxRecvDataSegmentLength => number(SEGMENT_MIN, DATA_LIMIT).map(|n| {
                self.send_max = n;
                Answer::None
            }),
            // RFC 7143: level 1; level 2 is RFC 7144, whose functions are not offered.
            Key::ProtocolLevel => number(0, 31).map(|n| Answer::Number(n.min(1))),
            // What RFC 7143 13.26 requires of every target is the first of the choices.
            Key::TaskReporting => task_reporting(offer).map(Answer::Word),
            // Obsolete (13.25): markers are never used.
            Key::IfMarker | Key::OfMarker => Some(Answer::Word("No")),
            Key::IfMarkInt | Key::OfMarkInt => Some(Answer::Word(REJECT)),
            _ => return None,
        };
        Some(answer.unwrap_or(Answer::Word(REJECT)))
    }

    /// The values that hold once login ends: bursts in proportion.
    #[must_use]
    pub fn settled(mut self) -> Params {
        self.first_burst = self.first_burst.min(self.max_burst);
        self
    }

    /// The values of a further connection of a session whose leading one agreed on `session`.
    #[must_use]
    pub fn within(self, session: &Params) -> Params {
        Params { digests: self.digests, send_max: self.send_max, ..*session }
    }
}

/// The digest chosen from a list: the first that both sides can do; `None` when there is none.
fn digest(offer: &str, insist: bool) -> Option<bool> {
    let mut known = value::list(offer).flatten().filter_map(|item| match item {
        CRC32C => Some(true),
        NONE if !insist => Some(false),
        _ => None,
    });
    known.next()
}

fn task_reporting(offer: &str) -> Option<&'static str> {
    let mut known = value::list(offer).flatten().filter_map(|item| match item {
        "FastAbort" => Some("FastAbort"),
        "RFC3720" => Some("RFC3720"),
        "ResponseFence" => Some("ResponseFence"),
        _ => None,
    });
    known.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(options: &Options) -> Rules<'_> {
        Rules { options, insist: Digests::NONE, discovery: false, leading: true }
    }

    #[test]
    fn every_key_has_its_result_function() {
        let options = Options { time_to_wait_s: 5, ..Options::default() };
        let mut p = Params::default();
        let word = |w| Some(Answer::Word(w));
        let number = |n| Some(Answer::Number(n));
        let all = [
            (Key::HeaderDigest, "CRC32C,None", word("CRC32C")),
            (Key::DataDigest, "x,None,CRC32C", word("None")),
            (Key::MaxConnections, "8", number(2)),
            (Key::InitialR2t, "No", word("No")),
            (Key::ImmediateData, "Yes", word("Yes")),
            (Key::MaxBurstLength, "16776192", number(1 << 20)),
            (Key::FirstBurstLength, "0x200", number(512)),
            (Key::MaxOutstandingR2t, "1", number(1)),
            (Key::DefaultTime2Wait, "2", number(5)),
            (Key::DefaultTime2Retain, "20", number(0)),
            (Key::DataPduInOrder, "No", word("Yes")),
            (Key::DataSequenceInOrder, "Yes", word("Yes")),
            (Key::ErrorRecoveryLevel, "2", number(0)),
            (Key::MaxRecvDataSegmentLength, "262144", Some(Answer::None)),
            (Key::ProtocolLevel, "2", number(1)),
            (Key::TaskReporting, "FastAbort,RFC3720", word("FastAbort")),
            (Key::IfMarker, "Yes", word("No")),
            (Key::OfMarkInt, "1~2", word("Reject")),
            (Key::TargetName, "iqn.x", None),
        ];
        for (key, offer, want) in all {
            assert_eq!(p.offer(key, offer, &rules(&options)), want, "{key:?}={offer}");
        }
        assert_eq!((p.send_max, p.first_burst, p.digests.header, p.initial_r2t), (262_144, 512, true, false));
    }

    #[test]
    fn values_out_of_range_are_rejected_and_change_nothing() {
        let options = Options::default();
        let bad = [
            (Key::MaxConnections, "0"),
            (Key::MaxConnections, "65536"),
            (Key::MaxConnections, "-1"),
            (Key::MaxBurstLength, "511"),
            (Key::MaxBurstLength, "16777216"),
            (Key::FirstBurstLength, "18446744073709551616"),
            (Key::InitialR2t, "yes"),
            (Key::HeaderDigest, "MD5"),
            (Key::HeaderDigest, ""),
            (Key::ErrorRecoveryLevel, "3"),
            (Key::MaxRecvDataSegmentLength, "1"),
            (Key::DefaultTime2Wait, "3601"),
        ];
        for (key, offer) in bad {
            let mut p = Params::default();
            assert_eq!(p.offer(key, offer, &rules(&options)), Some(Answer::Word(REJECT)), "{key:?}={offer}");
            assert_eq!(p, Params::default());
        }
    }

    #[test]
    fn sessions_without_data_and_further_connections_settle_less() {
        let options = Options::default();
        let mut p = Params::default();
        let discovery = Rules { discovery: true, ..rules(&options) };
        assert_eq!(p.offer(Key::MaxBurstLength, "4096", &discovery), Some(Answer::Word(IRRELEVANT)));
        assert_eq!(p.offer(Key::DefaultTime2Retain, "0", &discovery), Some(Answer::Number(0)));
        let further = Rules { leading: false, ..rules(&options) };
        assert_eq!(p.offer(Key::MaxBurstLength, "4096", &further), Some(Answer::Word(REJECT)));
        assert_eq!(p.offer(Key::HeaderDigest, "None", &further), Some(Answer::Word(NONE)));
        let insist = Rules { insist: Digests { header: true, data: false }, ..rules(&options) };
        assert_eq!(p.offer(Key::HeaderDigest, "None", &insist), Some(Answer::Word(REJECT)));
        assert_eq!(p.offer(Key::HeaderDigest, "None,CRC32C", &insist), Some(Answer::Word(CRC32C)));
        let odd = Params { first_burst: 9000, max_burst: 512, ..p };
        assert_eq!(odd.settled().first_burst, 512);
        assert_eq!(Params { send_max: 7, ..p }.within(&odd), Params { send_max: 7, digests: p.digests, ..odd });
    }
}
