//! Reports of one core's target to the control plane.

use super::conn::State;
use super::stats::{ConnectionReport, SessionReport, Stats};
use super::target::Target;
use crate::trace::Histogram;

impl Target {
    /// Counters of this core.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for conn in self.live() {
            conn.done.add_to(&mut stats);
            stats.connections_now += u64::from(matches!(conn.state(), State::Full | State::Leaving));
        }
        stats.in_login_now = self.in_login as u64;
        stats.sessions_now = self.sessions.len() as u64;
        stats.pending_now = self.pending as u64;
        stats
    }

    /// Starts (from nothing) or stops counting the commands of target `index` by latency. A command that is answered in the
    /// turn it came in counts with 0 ns.
    pub fn set_histogram(&mut self, index: u32, on: bool) {
        if let Some(node) = self.node_of(index) {
            self.nodes[node].latencies = on.then(Box::default);
        }
    }

    /// What was counted; `None` when nothing is.
    pub fn histogram(&self, index: u32) -> Option<&Histogram> {
        self.nodes[self.node_of(index)?].latencies.as_deref()
    }

    fn name_of(&self, target: Option<u32>) -> Option<String> {
        let index = target?;
        self.snapshot.targets.iter().find(|t| t.index == index).map(|t| t.name.clone())
    }

    /// Sessions of this core.
    pub fn sessions(&self) -> impl Iterator<Item = SessionReport> {
        self.sessions.iter().map(|s| SessionReport {
            core: self.core,
            tsih: s.tsih,
            isid: s.nexus.isid,
            initiator: s.nexus.initiator.to_string(),
            alias: s.alias.clone(),
            target: self.name_of(s.nexus.target),
            portal_group: s.nexus.tag,
            connections: s.conns.iter().map(|(cid, _)| *cid).collect(),
            window: s.max_cmd_sn.wrapping_sub(s.exp_cmd_sn).wrapping_add(1),
            bursts: (s.params.first_burst, s.params.max_burst),
            unsolicited: (s.params.immediate_data, s.params.initial_r2t),
        })
    }

    /// Connections of this core in full feature phase.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionReport> {
        self.live().filter(|c| c.state() == State::Full).filter_map(|c| {
            let session = self.sessions.peek(c.session?)?;
            Some(ConnectionReport {
                core: self.core,
                id: c.id.slot,
                cid: c.cid,
                tsih: session.tsih,
                peer: c.ends.peer,
                portal: c.ends.local,
                initiator: session.nexus.initiator.to_string(),
                target: self.name_of(session.nexus.target),
                digests: (c.out.digests.header, c.out.digests.data),
                outstanding: c.tasks.live(),
                commands: c.done.commands,
                read_bytes: c.done.read_bytes,
                write_bytes: c.done.write_bytes,
            })
        })
    }
}
