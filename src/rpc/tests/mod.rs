//! The whole door, on a data path in memory: calls and replies, the socket, the real SPDK client.

mod calls;
mod fuzz;
mod iscsi;
mod nvme;
mod socket;
mod spdk_client;

use super::context::{Caller, Context};
use super::dispatch::{Answered, answer};
use super::logging::{Logging, Settings};
use crate::cluster::testing::{FakeNode, Fuse, MemFile, World, journal};
use crate::cluster::{Control, Declared};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

/// A node that has not started yet, on a machine with a file.
fn stopped_on(file: &MemFile, world: &Rc<RefCell<World>>) -> Rc<Context<FakeNode>> {
    let (journal, state) = journal(file).expect("the journal opens");
    let node = FakeNode::new(world.clone(), Fuse::of(u64::MAX));
    Context::new(Control::new(node, journal, state), Logging::new(Settings::default(), |_| {}), Declared::default())
}

fn stopped() -> Rc<Context<FakeNode>> {
    let world = FakeNode::world(&[("/disk", 1 << 30), ("/two", 1 << 26)]);
    stopped_on(&MemFile::new(Fuse::of(u64::MAX)), &world)
}

/// Runs on a runtime with one thread, as the node does.
fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// A running node.
async fn node() -> Rc<Context<FakeNode>> {
    let context = stopped();
    context.start().await;
    context
}

/// The reply to a text.
async fn say(context: &Rc<Context<FakeNode>>, text: &str) -> String {
    match answer(context, Caller::Admin, text.as_bytes()).await {
        Answered::Reply(text) | Answered::Close(text) => text,
    }
}

/// The result of a call, or its error as `Err((code, message))`.
async fn call(context: &Rc<Context<FakeNode>>, method: &str, params: Value) -> Result<Value, (i64, String)> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply: Value = serde_json::from_str(&say(context, &request.to_string()).await).expect("a reply is JSON");
    assert_eq!(reply["id"], 1);
    match reply.get("error") {
        None => Ok(reply["result"].clone()),
        Some(e) => Err((e["code"].as_i64().expect("a code"), e["message"].as_str().expect("a message").to_owned())),
    }
}

/// The result of a call that works.
async fn ok(context: &Rc<Context<FakeNode>>, method: &str, params: Value) -> Value {
    call(context, method, params).await.unwrap_or_else(|e| panic!("{method}: {e:?}"))
}

const NQN: &str = "nqn.2016-06.io.spdk:cnode1";
