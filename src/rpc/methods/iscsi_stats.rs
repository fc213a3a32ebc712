//! What iSCSI initiators do at the moment: connections, latencies, reservations.

use super::iscsi::existing;
use super::nvmf::hex;
use super::{DONE, Named, Nothing, TICK_RATE, poll_group};
use crate::cluster::{IscsiConnectionReport, IscsiPhase, Node};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::{INVALID_PARAMS, RpcError};
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method};
use crate::trace::GRANULARITY;
use crate::volume::reserve::{Nexus, Type};
use serde_json::{Value, json};
use std::rc::Rc;

params! {
    /// Of `iscsi_enable_histogram`.
    pub struct EnableHistogram {
        /// The target node.
        name: String,
        /// Count, from nothing, or count no more.
        enable: bool,
    }

    /// Of `iscsi_get_histogram`.
    pub struct GetHistogram {
        /// The target node.
        name: String,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::nvmf("iscsi_get_connections", "iSCSI connections.", get_connections),
        Method::nvmf("iscsi_get_stats", "How many iSCSI connections are in which state.", get_stats),
        Method::nvmf("iscsi_enable_histogram", "Counts a target's commands by latency.", enable_histogram),
        Method::nvmf("iscsi_get_histogram", "A target's commands by latency, in nanoseconds.", get_histogram),
        Method::bdev("pollux_bdev_get_reservations", "Who reserved a bdev, and how.", get_reservations),
    ]
}

/// SPDK's word for the state: (connection, login).
fn words(phase: IscsiPhase) -> (&'static str, &'static str) {
    match phase {
        IscsiPhase::Security => ("running", "security_negotiation"),
        IscsiPhase::Operational => ("running", "operational_negotiation"),
        IscsiPhase::Full => ("running", "full_feature_phase"),
        IscsiPhase::Ending => ("exiting", "full_feature_phase"),
    }
}

async fn get_connections<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let one = |c: &IscsiConnectionReport| {
        let (state, login) = words(c.phase);
        let short = c.target.split_once(':').map_or(c.target.as_str(), |(_, short)| short);
        json!({
            "id": c.id, "cid": c.cid, "tsih": c.tsih, "state": state, "login_phase": login,
            "initiator_addr": c.peer.ip().to_canonical().to_string(), "target_addr": c.local.ip().to_canonical().to_string(),
            "target_node_name": short, "thread_name": poll_group(c.core), "initiator_name": c.initiator,
        })
    };
    Ok(context.control.node().iscsi_connections().await.iter().map(one).collect())
}

async fn get_stats<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let connections = context.control.node().iscsi_connections().await;
    let exiting = connections.iter().filter(|c| c.phase == IscsiPhase::Ending).count();
    Ok(json!({"invalid": 0, "running": connections.len() - exiting, "exiting": exiting, "exited": 0}))
}

async fn enable_histogram<N: Node>(context: Rc<Context<N>>, p: EnableHistogram) -> Answer {
    let (_, index) = existing(&context, &p.name)?;
    context.control.node().set_histogram(index, p.enable).await;
    Ok(DONE)
}

async fn get_histogram<N: Node>(context: Rc<Context<N>>, p: GetHistogram) -> Answer {
    let (_, index) = existing(&context, &p.name)?;
    let off = || RpcError::new(INVALID_PARAMS, "target's histogram function is not enabled");
    let histogram = context.control.node().histogram(index).await.ok_or_else(off)?;
    let bytes: Vec<u8> = histogram.buckets().iter().flat_map(|count| count.to_le_bytes()).collect();
    let (min_range, max_range) = histogram.shape();
    Ok(json!({
        "histogram": base64(&bytes), "granularity": GRANULARITY, "min_range": min_range, "max_range": max_range,
        "tsc_rate": TICK_RATE,
    }))
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

async fn get_reservations<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    let bdev = context.control.bdev(&p.name).map_err(bdev_error)?;
    let reservations = context.control.state().reservations(bdev.id());
    let nexus =
        |n: &Nexus| json!({"initiator": initiator(&n.initiator), "target_id": n.target, "relative_port": n.port});
    let registrants: Vec<Value> = reservations
        .registrants()
        .iter()
        .map(|r| {
            let mut all = nexus(&r.nexus);
            all["key"] = format!("{:#018x}", r.key).into();
            all["holder"] = reservations.holds(&r.nexus).into();
            all
        })
        .collect();
    let kind = reservations.reservation().map(|r| match r.kind {
        Type::WriteExclusive => "write_exclusive",
        Type::ExclusiveAccess => "exclusive_access",
        Type::WriteExclusiveRegistrantsOnly => "write_exclusive_registrants_only",
        Type::ExclusiveAccessRegistrantsOnly => "exclusive_access_registrants_only",
        Type::WriteExclusiveAllRegistrants => "write_exclusive_all_registrants",
        Type::ExclusiveAccessAllRegistrants => "exclusive_access_all_registrants",
    });
    Ok(json!({
        "bdev_name": bdev.name(), "generation": reservations.generation(), "persist": reservations.aptpl(),
        "type": kind, "registrants": registrants, "reserve6": reservations.legacy().map(nexus),
    }))
}

/// An initiator port's name: text where it is some (an iSCSI name behind a `TransportID`'s header), else hexadecimal.
fn initiator(id: &[u8]) -> String {
    // SPC-4 7.6.4.6: four bytes of header, then the name, ",i,0x" and the ISID, padded with zeros.
    let text = id.get(4..).unwrap_or_default();
    let end = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    match std::str::from_utf8(&text[..end]) {
        Ok(name) if end > 0 && name.bytes().all(|b| b.is_ascii_graphic()) => name.to_owned(),
        _ => hex(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn initiators_are_shown_as_text_where_they_are_text() {
        assert_eq!(initiator(b"\x45\0\0\x14iqn.a,i,0x0123456789ab\0\0"), "iqn.a,i,0x0123456789ab");
        assert_eq!(initiator(&[7, 0xab]), "07AB");
        assert_eq!(initiator(&[0; 16]), "0".repeat(32));
    }
}
