//! Ethernet addresses of the hosts on the link (ARP, RFC 826; Neighbour Discovery, RFC 4861 section 7): a bounded table,
//! when to ask, and when to give up. The packets themselves are in `discovery.rs`.
//!
//! What stays true: an address that was learned stays in use while frames from it arrive; after [`QUIET_NS`] without
//! any it is asked again and used meanwhile; [`TRIES`] unanswered questions make it unknown.

use crate::base::Time;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// Hosts remembered.
const HOSTS: usize = 256;
/// Silence after which a host is asked whether it is still there (RFC 4861 `REACHABLE_TIME`).
const QUIET_NS: u64 = 30_000_000_000;
/// Questions before a host counts as not there.
const TRIES: u8 = 5;
/// Time until the first question is repeated; doubles each time: 0.2 + 0.4 + 0.8 + 1.6 + 3.2 s in all.
const AGAIN_MS: u64 = 200;

#[derive(Clone, Copy)]
struct Host {
    ip: u128,
    mac: Option<Mac>,
    heard: Time,
    /// When the next question may be sent.
    again: Time,
    tries: u8,
    /// Frames of this host come from another address: it may have moved.
    doubt: bool,
}

/// Where a host is in the table; checked against the address at each use, so an old one only costs a look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Place(u16);

/// What is known of the way to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Send there.
    Known(Mac),
    /// Send there, and ask it whether it is still there.
    Confirm(Mac),
    /// Send there, and ask everybody where it is now.
    Doubt(Mac),
    /// Ask everybody.
    Ask,
    /// Asked; look again then.
    Wait(Time),
    /// Nobody answers to this address.
    Nobody,
}

/// The hosts of one link.
pub(super) struct Neighbours {
    hosts: Vec<Host>,
    /// Counts changes from unknown to known.
    pub(super) learned: u64,
}

impl Neighbours {
    /// Nobody known.
    pub(super) fn new() -> Neighbours {
        Neighbours { hosts: Vec::with_capacity(HOSTS), learned: 0 }
    }

    fn search(&self, ip: u128) -> Option<usize> {
        self.hosts.iter().position(|h| h.ip == ip)
    }

    /// The place of `ip`, made if need be at the cost of the host that was heard of least recently.
    pub(super) fn place(&mut self, ip: u128) -> Place {
        let at = self.search(ip).unwrap_or_else(|| {
            let fresh = Host { ip, mac: None, heard: Time(0), again: Time(0), tries: 0, doubt: false };
            if self.hosts.len() < HOSTS {
                self.hosts.push(fresh);
                return self.hosts.len() - 1;
            }
            let oldest = self.hosts.iter().enumerate().min_by_key(|(_, h)| h.heard.max(h.again));
            let (at, _) = oldest.expect("a full table has hosts");
            self.hosts[at] = fresh;
            at
        });
        Place(at as u16)
    }

    fn host(&mut self, place: &mut Place, ip: u128) -> &mut Host {
        if self.hosts.get(usize::from(place.0)).is_none_or(|h| h.ip != ip) {
            *place = self.place(ip);
        }
        &mut self.hosts[usize::from(place.0)]
    }

    /// The way to `ip`; an answer that asks for a question expects it to be sent.
    pub(super) fn reach(&mut self, place: &mut Place, ip: u128, now: Time) -> Reach {
        let host = self.host(place, ip);
        if let Some(mac) = host.mac {
            if host.doubt && now >= host.again && host.tries < TRIES {
                host.question(now);
                return Reach::Doubt(mac);
            }
            if now.since(host.heard) < QUIET_NS || now < host.again {
                return Reach::Known(mac);
            }
            if host.tries < TRIES {
                host.question(now);
                return Reach::Confirm(mac);
            }
            (host.mac, host.tries) = (None, 0);
        }
        if now < host.again {
            return Reach::Wait(host.again);
        }
        if host.tries < TRIES {
            host.question(now);
            return Reach::Ask;
        }
        // The next attempt to reach it asks anew.
        host.tries = 0;
        Reach::Nobody
    }

    /// A frame of `ip` arrived from `mac`.
    pub(super) fn heard(&mut self, place: &mut Place, ip: u128, mac: Mac, now: Time) {
        let host = self.host(place, ip);
        match host.mac {
            Some(known) if known == mac => (host.heard, host.tries, host.doubt) = (now, 0, false),
            // Only an answer to a question changes an address that is in use.
            Some(_) => host.doubt = true,
            None => {
                (host.mac, host.heard, host.tries, host.doubt) = (Some(mac), now, 0, false);
                self.learned += 1;
            }
        }
    }

    /// A host said where it is. With `only_known`, hosts that nobody asked about are not entered.
    pub(super) fn learn(&mut self, ip: u128, mac: Mac, only_known: bool, now: Time) {
        if only_known && self.search(ip).is_none() {
            return;
        }
        let mut place = self.place(ip);
        let host = self.host(&mut place, ip);
        let news = host.mac.is_none();
        (host.mac, host.heard, host.tries, host.doubt) = (Some(mac), now, 0, false);
        self.learned += u64::from(news);
    }
}

impl Host {
    fn question(&mut self, now: Time) {
        self.again = now.after_ms(AGAIN_MS << self.tries);
        self.tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    fn questions(table: &mut Neighbours, ip: u128, from: Time) -> (usize, Time) {
        let mut place = Place::default();
        let (mut now, mut asked) = (from, 0);
        loop {
            match table.reach(&mut place, ip, now) {
                Reach::Ask => asked += 1,
                Reach::Wait(until) => now = until,
                Reach::Nobody => return (asked, now),
                known => panic!("{known:?}"),
            }
        }
    }

    #[test]
    fn a_silent_address_is_given_up_and_asked_anew_later() {
        let mut table = Neighbours::new();
        let (asked, end) = questions(&mut table, 7, Time(5));
        assert_eq!((asked, end.since(Time(5))), (5, 6_200_000_000));
        assert_eq!(questions(&mut table, 7, end).0, 5);
    }

    #[test]
    fn a_known_address_is_confirmed_when_quiet_and_forgotten_when_silent() {
        let mut table = Neighbours::new();
        let mut place = table.place(7);
        assert_eq!(table.reach(&mut place, 7, Time(0)), Reach::Ask);
        table.learn(7, A, true, Time(1));
        assert_eq!((table.reach(&mut place, 7, Time(2)), table.learned), (Reach::Known(A), 1));
        let quiet = Time(1).after_ns(QUIET_NS);
        assert_eq!(table.reach(&mut place, 7, quiet), Reach::Confirm(A));
        assert_eq!(table.reach(&mut place, 7, quiet.after_ms(1)), Reach::Known(A), "not at each frame");
        table.heard(&mut place, 7, B, quiet.after_ms(2));
        assert_eq!(table.reach(&mut place, 7, quiet.after_ms(300)), Reach::Doubt(A), "it is asked about, not believed");
        table.heard(&mut place, 7, A, quiet.after_ms(301));
        assert_eq!(table.reach(&mut place, 7, quiet.after_ms(9000)), Reach::Known(A));
        let mut now = quiet.after_ms(301).after_ns(QUIET_NS);
        let mut confirms = 0;
        loop {
            match table.reach(&mut place, 7, now) {
                Reach::Confirm(_) => confirms += 1,
                Reach::Known(_) => now = now.after_ms(100),
                other => break assert_eq!(other, Reach::Ask, "everybody is asked when the host itself is silent"),
            }
        }
        assert_eq!(confirms, TRIES);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_recent() {
        let mut table = Neighbours::new();
        for n in 0..1000u32 {
            table.learn(u128::from(n), A, false, Time(u64::from(n) + 1));
        }
        assert_eq!(table.hosts.len(), HOSTS);
        let mut place = Place::default();
        assert_eq!(table.reach(&mut place, 999, Time(1001)), Reach::Known(A));
        assert_eq!(table.reach(&mut place, 3, Time(1001)), Reach::Ask);
        table.learn(5000, A, true, Time(2000));
        assert_eq!(table.search(5000), None, "nobody asked");
    }
}
