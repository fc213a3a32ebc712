//! Options of iSCSI as a whole.

use super::iscsi::{chap, chap_json};
use super::nvmf::inert_json;
use super::{DONE, Nothing};
use crate::cluster::iscsi::{Change, Chap, Options};
use crate::cluster::{Inert, Node};
use crate::rpc::context::{Context, nvmf_error};
use crate::rpc::error::Dialect;
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Map, Value};
use std::rc::Rc;

params! {
    /// Of `iscsi_set_options`. What is not given stays as it is.
    pub struct SetOptions {
        /// Remembered, without effect: secrets are given by `iscsi_create_auth_group`.
        auth_file: Option<String>,
        /// What stands before ':' and the short name of a target node; `iqn.2016-06.io.spdk` unless set.
        node_base: Option<String>,
        /// Seconds a ping may stay without an answer, 1 to 3600; 5 unless set.
        nop_timeout: Option<u16>,
        /// Seconds of silence before a session is pinged, 0 (never) to 3600; 5 unless set.
        nop_in_interval: Option<u16>,
        /// CHAP is not offered for discovery.
        disable_chap: Option<bool>,
        /// CHAP is required for discovery.
        require_chap: Option<bool>,
        /// The target proves itself, too, for discovery.
        mutual_chap: Option<bool>,
        /// The auth group with the secrets for discovery.
        chap_group: Option<u32>,
        /// Sessions of one initiator with one target, 1 to 1024; 128 unless set.
        max_sessions: Option<u32>,
        /// Commands of one session under way, 2 to 1024; 128 unless set.
        max_queue_depth: Option<u16>,
        /// `MaxConnections`, 1 to 16; 2 unless set.
        max_connections_per_session: Option<u16>,
        /// `DefaultTime2Wait`, seconds, 0 to 3600; 2 unless set.
        default_time2wait: Option<u16>,
        /// `DefaultTime2Retain`, seconds, 0 to 3600; 0 unless set.
        default_time2retain: Option<u16>,
        /// `FirstBurstLength`, bytes, 512 to 1048576; 65536 unless set.
        first_burst_length: Option<u32>,
        /// `ImmediateData`; true unless set.
        immediate_data: Option<bool>,
        /// Remembered; level 0 is negotiated.
        error_recovery_level: Option<u8>,
        /// Remembered, without effect: a second session with the same ISID takes the first one's place.
        allow_duplicated_isid: Option<bool>,
        /// Remembered, without effect: buffers bound large reads.
        max_large_datain_per_connection: Option<u32>,
        /// `MaxOutstandingR2T`, 1 to 256; 4 unless set.
        max_r2t_per_connection: Option<u16>,
        /// Remembered, without effect: see `iobuf_get_stats`.
        pdu_pool_size: Option<u32>,
        /// Remembered, without effect: see `iobuf_get_stats`.
        immediate_data_pool_size: Option<u32>,
        /// Remembered, without effect: see `iobuf_get_stats`.
        data_out_pool_size: Option<u32>,
    }

    /// Of `iscsi_set_discovery_auth`.
    pub struct SetDiscoveryAuth {
        /// CHAP is not offered; false unless given.
        disable_chap: Option<bool>,
        /// CHAP is required; false unless given.
        require_chap: Option<bool>,
        /// The target proves itself, too; false unless given.
        mutual_chap: Option<bool>,
        /// The auth group with the secrets; 0, none, unless given.
        chap_group: Option<u32>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    let doc = "Sets options of iSCSI, for connections to come.";
    vec![
        Method::new("iscsi_set_options", doc, When::Always, Dialect::Nvmf, false, set_options),
        Method::nvmf("iscsi_get_options", "Options of iSCSI.", get_options),
        Method::nvmf("iscsi_set_discovery_auth", "How initiators prove themselves for discovery.", set_discovery_auth),
    ]
}

async fn set_options<N: Node>(context: Rc<Context<N>>, p: SetOptions) -> Answer {
    let old = context.control.state().iscsi().options();
    let mut inert = old.inert;
    let flags = [("allow_duplicated_isid", p.allow_duplicated_isid)];
    let numbers = [
        ("max_large_datain_per_connection", p.max_large_datain_per_connection),
        ("pdu_pool_size", p.pdu_pool_size),
        ("immediate_data_pool_size", p.immediate_data_pool_size),
        ("data_out_pool_size", p.data_out_pool_size),
    ];
    inert.extend(p.auth_file.map(|file| ("auth_file".to_owned(), Inert::Text(file))));
    inert.extend(flags.into_iter().filter_map(|(name, flag)| Some((name.to_owned(), Inert::Flag(flag?)))));
    inert.extend(numbers.into_iter().filter_map(|(name, n)| Some((name.to_owned(), Inert::Number(n?.into())))));
    let auth = old.discovery_auth;
    let options = Options {
        node_base: p.node_base.unwrap_or(old.node_base),
        max_sessions: p.max_sessions.unwrap_or(old.max_sessions),
        max_connections_per_session: p.max_connections_per_session.unwrap_or(old.max_connections_per_session),
        max_queue_depth: p.max_queue_depth.unwrap_or(old.max_queue_depth),
        default_time2wait: p.default_time2wait.unwrap_or(old.default_time2wait),
        default_time2retain: p.default_time2retain.unwrap_or(old.default_time2retain),
        first_burst_length: p.first_burst_length.unwrap_or(old.first_burst_length),
        immediate_data: p.immediate_data.unwrap_or(old.immediate_data),
        error_recovery_level: p.error_recovery_level.unwrap_or(old.error_recovery_level),
        nop_in_interval: p.nop_in_interval.unwrap_or(old.nop_in_interval),
        nop_timeout: p.nop_timeout.unwrap_or(old.nop_timeout),
        max_r2t_per_connection: p.max_r2t_per_connection.unwrap_or(old.max_r2t_per_connection),
        discovery_auth: Chap {
            disabled: p.disable_chap.unwrap_or(auth.disabled),
            required: p.require_chap.unwrap_or(auth.required),
            mutual: p.mutual_chap.unwrap_or(auth.mutual),
            group: p.chap_group.unwrap_or(auth.group),
        },
        inert,
    };
    context.control.change_iscsi(Change::SetOptions(options)).await.map(|()| DONE).map_err(nvmf_error)
}

/// The options as they are shown and saved.
pub(super) fn options_json(o: &Options) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    put("node_base", o.node_base.as_str().into());
    put("max_sessions", o.max_sessions.into());
    put("max_connections_per_session", o.max_connections_per_session.into());
    put("max_queue_depth", o.max_queue_depth.into());
    put("default_time2wait", o.default_time2wait.into());
    put("default_time2retain", o.default_time2retain.into());
    put("first_burst_length", o.first_burst_length.into());
    put("immediate_data", o.immediate_data.into());
    put("error_recovery_level", o.error_recovery_level.into());
    put("nop_timeout", o.nop_timeout.into());
    put("nop_in_interval", o.nop_in_interval.into());
    for (name, value) in chap_json(o.discovery_auth) {
        put(name, value);
    }
    put("max_r2t_per_connection", o.max_r2t_per_connection.into());
    for (name, value) in &o.inert {
        put(name, inert_json(value));
    }
    Value::Object(all)
}

async fn get_options<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(options_json(&context.control.state().iscsi().options()))
}

async fn set_discovery_auth<N: Node>(context: Rc<Context<N>>, p: SetDiscoveryAuth) -> Answer {
    let auth = chap(p.disable_chap, p.require_chap, p.mutual_chap, p.chap_group);
    context.control.change_iscsi(Change::SetDiscoveryAuth(auth)).await.map(|()| DONE).map_err(nvmf_error)
}
