//! Options of the protocol as a whole (SPDK: `iscsi_set_options`).

use super::{Chap, QUEUE_DEPTH_MAX};
use crate::cluster::error::Error;
use crate::cluster::model::{Inert, range};
use crate::cluster::names::IscsiName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest first burst, bytes: the longest burst that is negotiated.
pub const FIRST_BURST_MAX: u32 = 1 << 20;

/// What is negotiated, and how long is waited. Ranges are checked by [`Options::check`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// What stands before ':' and the short name of a target node.
    pub node_base: String,
    /// Sessions of one initiator with one target, 1..=1024.
    pub max_sessions: u32,
    /// `MaxConnections`, 1..=16.
    pub max_connections_per_session: u16,
    /// Commands of one session under way, 2..=[`QUEUE_DEPTH_MAX`]; a target node may have less.
    pub max_queue_depth: u16,
    /// `DefaultTime2Wait`, seconds, 0..=3600.
    pub default_time2wait: u16,
    /// `DefaultTime2Retain`, seconds, 0..=3600.
    pub default_time2retain: u16,
    /// `FirstBurstLength`, bytes, 512..=[`FIRST_BURST_MAX`].
    pub first_burst_length: u32,
    /// `ImmediateData`.
    pub immediate_data: bool,
    /// Whatever is asked for, 0..=2; 0 is negotiated.
    pub error_recovery_level: u8,
    /// Seconds of silence before a session is pinged, 0..=3600; 0: never.
    pub nop_in_interval: u16,
    /// Seconds a ping may stay without an answer, 1..=3600.
    pub nop_timeout: u16,
    /// `MaxOutstandingR2T`, 1..=256.
    pub max_r2t_per_connection: u16,
    /// CHAP for discovery.
    pub discovery_auth: Chap,
    /// Parameters that SPDK knows and that change nothing here; reported as they were given.
    pub inert: BTreeMap<String, Inert>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            node_base: "iqn.2016-06.io.spdk".to_owned(),
            max_sessions: 128,
            max_connections_per_session: 2,
            max_queue_depth: 128,
            default_time2wait: 2,
            default_time2retain: 0,
            first_burst_length: 64 << 10,
            immediate_data: true,
            error_recovery_level: 0,
            nop_in_interval: 5,
            nop_timeout: 5,
            max_r2t_per_connection: 4,
            discovery_auth: Chap::default(),
            inert: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Every option in its range.
    pub fn check(&self) -> Result<(), Error> {
        // A base is good when it makes a name.
        self.full_name("x")?;
        range("max_sessions", self.max_sessions, 1, 1024)?;
        range("max_connections_per_session", self.max_connections_per_session, 1, 16)?;
        range("max_queue_depth", self.max_queue_depth, 2, u64::from(QUEUE_DEPTH_MAX))?;
        range("default_time2wait", self.default_time2wait, 0, 3600)?;
        range("default_time2retain", self.default_time2retain, 0, 3600)?;
        range("first_burst_length", self.first_burst_length, 512, u64::from(FIRST_BURST_MAX))?;
        range("error_recovery_level", self.error_recovery_level, 0, 2)?;
        range("nop_in_interval", self.nop_in_interval, 0, 3600)?;
        range("nop_timeout", self.nop_timeout, 1, 3600)?;
        range("max_r2t_per_connection", self.max_r2t_per_connection, 1, 256)?;
        self.discovery_auth.check()
    }

    /// The name of a target node that was called `name`: with the base in front unless it is a whole name.
    pub fn full_name(&self, name: &str) -> Result<IscsiName, Error> {
        let head = name.get(..4).unwrap_or_default();
        if ["iqn.", "eui.", "naa."].iter().any(|kind| head.eq_ignore_ascii_case(kind)) {
            IscsiName::new(name)
        } else {
            IscsiName::new(&format!("{}:{name}", self.node_base))
        }
    }
}
