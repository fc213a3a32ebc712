//! Notifications: what came, went and changed size since the node started.

use super::Nothing;
use crate::cluster::{EventKind, Node};
use crate::rpc::context::Context;
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method};
use serde_json::json;
use std::rc::Rc;

params! {
    /// Of `notify_get_notifications`.
    pub struct Get {
        /// The first one wanted; 0 unless given.
        id: Option<u64>,
        /// How many at most.
        max: Option<u64>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::core("notify_get_types", "Kinds of notifications.", types),
        Method::core("notify_get_notifications", "Notifications in their order; the oldest are forgotten.", get),
    ]
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Register => "bdev_register",
        EventKind::Unregister => "bdev_unregister",
        EventKind::Resize => "bdev_resize",
    }
}

async fn types<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(json!([EventKind::Register, EventKind::Unregister, EventKind::Resize].map(word)))
}

async fn get<N: Node>(context: Rc<Context<N>>, p: Get) -> Answer {
    let max = usize::try_from(p.max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let events = context.control.events(p.id.unwrap_or(0), max);
    Ok(events.iter().map(|e| json!({"type": word(e.kind), "ctx": e.bdev, "id": e.id})).collect())
}
