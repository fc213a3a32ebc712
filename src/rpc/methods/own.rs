//! Methods that SPDK does not have.

use super::{DONE, Nothing};
use crate::base::BLOCK;
use crate::cluster::{FORMAT, Node, Problem};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::{Field, params};
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Map, Value, json};
use std::rc::Rc;

params! {
    /// Which store.
    pub struct WhichStore {
        /// By name or UUID.
        store: String,
    }

    /// Of `pollux_get_schema`.
    pub struct GetSchema {
        /// Only this method.
        method: Option<String>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::core("pollux_get_version", "Which Pollux this is.", version).when(When::Always),
        Method::core("pollux_get_schema", "Methods, their parameters, and what they do.", schema).when(When::Always),
        Method::core("pollux_get_problems", "What is configured but does not work, and why.", problems),
        Method::bdev("pollux_store_get_usage", "A store's room and counters.", usage),
        Method::bdev("pollux_store_scrub_start", "Starts verifying every block of a store.", scrub_start),
        Method::bdev("pollux_store_scrub_status", "The running or the last scrub of a store.", scrub_status),
    ]
}

async fn version<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let node = context.control.state().node();
    Ok(json!({"version": env!("CARGO_PKG_VERSION"), "node": node, "state_format": FORMAT, "pid": std::process::id()}))
}

fn field(field: &Field) -> Value {
    let mut all = json!({
        "name": field.name, "type": field.kind.trim(), "required": field.required, "doc": field.doc.trim(),
    });
    if !field.inner.is_empty() {
        all["fields"] = field.inner.iter().map(self::field).collect();
    }
    all
}

async fn schema<N: Node + 'static>(context: Rc<Context<N>>, p: GetSchema) -> Answer {
    if let Some(name) = &p.method
        && context.table.get(name).is_none()
    {
        return Err(RpcError::params(format!("there is no method '{name}'")));
    }
    let one = |m: &Method<N>| {
        let when = match m.when {
            When::Startup => "startup",
            When::Runtime => "runtime",
            When::Always => "always",
        };
        let fields: Vec<Value> = m.fields.iter().map(field).collect();
        json!({"name": m.name, "doc": m.doc, "when": when, "params": fields})
    };
    let wanted = context.table.iter().filter(|m| p.method.as_deref().is_none_or(|name| name == m.name));
    Ok(wanted.map(one).collect())
}

async fn problems<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let state = context.control.state();
    let one = |(problem, error): (Problem, String)| {
        let (kind, name) = match problem {
            Problem::Device(id) => ("bdev", state.device(id).map_or(format!("#{}", id.0), |d| d.name.to_string())),
            Problem::Store(uuid) => ("store", state.store(uuid).map_or(uuid.to_string(), |s| s.name.to_string())),
            Problem::Listener(addr) => ("listener", addr.to_string()),
            Problem::Intent(intent) => ("deletion", format!("{intent:?}")),
        };
        json!({"kind": kind, "name": name, "error": error})
    };
    Ok(context.control.problems().into_iter().map(one).collect())
}

async fn usage<N: Node>(context: Rc<Context<N>>, p: WhichStore) -> Answer {
    let store = context.control.store(&p.store).map_err(bdev_error)?;
    let room = context.control.room(&store).await.map_err(bdev_error)?;
    let volumes = context.control.volumes().into_iter().filter(|(s, _)| *s == store.uuid);
    let mapped = |id| room.usage.mapped.iter().find(|(v, _)| *v == id).map_or(0, |(_, blocks)| *blocks);
    let volume = |(_, v): (_, crate::cluster::Volume)| {
        json!({
            "name": v.name.as_str(), "uuid": v.uuid, "bytes": v.bytes, "thin": v.thin,
            "mapped_bytes": mapped(v.id) * BLOCK as u64,
        })
    };
    let counters: Map<String, Value> =
        room.usage.counters.iter().map(|(name, n)| ((*name).to_owned(), (*n).into())).collect();
    let block = BLOCK as u64;
    Ok(json!({
        "name": store.name.as_str(), "uuid": store.uuid, "total_bytes": room.total * block,
        "free_bytes": room.usage.free_blocks * block, "unpromised_bytes": room.free * block,
        "volumes": volumes.map(volume).collect::<Vec<_>>(), "counters": counters,
    }))
}

async fn scrub_start<N: Node>(context: Rc<Context<N>>, p: WhichStore) -> Answer {
    let store = context.control.store(&p.store).map_err(bdev_error)?;
    context.control.scrub_start(&store).await.map(|()| DONE).map_err(bdev_error)
}

async fn scrub_status<N: Node>(context: Rc<Context<N>>, p: WhichStore) -> Answer {
    let store = context.control.store(&p.store).map_err(bdev_error)?;
    let scrub = context.control.scrub_status(&store).await.map_err(bdev_error)?;
    Ok(json!({
        "running": scrub.running, "done_bytes": scrub.done_bytes, "total_bytes": scrub.total_bytes,
        "errors": scrub.errors,
    }))
}
