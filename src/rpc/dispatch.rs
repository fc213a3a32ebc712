//! From one framed value to its reply: a request, or a batch of them (JSON-RPC 2.0 sections 4 and 6), as SPDK takes them.

use super::context::{Caller, Context};
use super::error::{INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError, WRONG_STATE};
use super::json::{Json, duplicate};
use super::table::{Answer, When};
use crate::cluster::Node;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::rc::Rc;

/// What to do after a value was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// Send this; empty when nothing is to be said.
    Reply(String),
    /// Send this and close: what follows in the stream can not be trusted.
    Close(String),
}

/// Most requests in one batch.
const BATCH_MAX: usize = 4096;

/// The members of a request, as they stand in the text.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Answers one framed value.
pub async fn answer<N: Node + 'static>(context: &Rc<Context<N>>, caller: Caller, bytes: &[u8]) -> Answered {
    let json = match Json::parse(bytes) {
        Ok(json) => json,
        Err(e) => return Answered::Close(reply(None, &Err(RpcError::new(PARSE_ERROR, format!("Parse error: {e}"))))),
    };
    match json {
        Json::Array(items) => Answered::Reply(batch(context, caller, bytes, items).await),
        json => Answered::Reply(single(context, caller, bytes, json).await.unwrap_or_default()),
    }
}

async fn batch<N: Node + 'static>(context: &Rc<Context<N>>, caller: Caller, bytes: &[u8], items: Vec<Json>) -> String {
    let refused = |why: &str| reply(None, &Err(RpcError::new(INVALID_REQUEST, format!("Invalid request: {why}"))));
    if items.is_empty() {
        return refused("an empty batch");
    }
    if items.len() > BATCH_MAX {
        return refused("more than 4096 requests in a batch");
    }
    let Ok(texts) = serde_json::from_slice::<Vec<&RawValue>>(bytes) else {
        return refused("a batch that can not be taken apart");
    };
    let mut replies: Vec<String> = Vec::new();
    for (json, text) in items.into_iter().zip(texts) {
        replies.extend(single(context, caller, text.get().as_bytes(), json).await);
    }
    if replies.is_empty() {
        return String::new();
    }
    let inside: Vec<&str> = replies.iter().map(|r| r.trim_end()).collect();
    format!("[{}]\n", inside.join(","))
}

/// Answers one request; `None` where nothing is to be said: a success that nobody waits for.
async fn single<N: Node + 'static>(
    context: &Rc<Context<N>>,
    caller: Caller,
    text: &[u8],
    json: Json,
) -> Option<String> {
    let request = match read(json) {
        Ok(request) => request,
        Err(e) => return Some(reply(id_of(text), &Err(e))),
    };
    let id = id_of(text);
    let result = call(context, caller, request).await;
    (id.is_some() || result.is_err()).then(|| reply(id, &result))
}

struct Request {
    method: String,
    params: Option<Json>,
}

fn read(json: Json) -> Result<Request, RpcError> {
    let refused = |why: String| RpcError::new(INVALID_REQUEST, format!("Invalid request: {why}"));
    let Json::Object(members) = json else {
        return Err(refused(format!("it is {}, not an object", json.kind())));
    };
    if let Some(name) = duplicate(&members) {
        return Err(refused(format!("'{name}' is given twice")));
    }
    let (mut method, mut params) = (None, None);
    for (name, value) in members {
        match (name.as_str(), value) {
            ("jsonrpc", Json::Text(version)) if version == "2.0" => {}
            ("jsonrpc", _) => return Err(refused("'jsonrpc' must be \"2.0\"".to_owned())),
            ("method", Json::Text(name)) => method = Some(name),
            ("method", other) => return Err(refused(format!("'method' must be a string, not {}", other.kind()))),
            ("params", value) => params = Some(value),
            ("id", Json::Text(_) | Json::Number(_) | Json::Null) => {}
            ("id", other) => return Err(refused(format!("'id' must be a string or number, not {}", other.kind()))),
            (other, _) => {
                let other: String = other.chars().take(64).collect();
                return Err(refused(format!("'{other}' is not a member of a request")));
            }
        }
    }
    let method = method.ok_or_else(|| refused("'method' is missing".to_owned()))?;
    Ok(Request { method, params })
}

/// The id as it stands in the text; `None` without one, or when it is null or could not be one.
fn id_of(text: &[u8]) -> Option<&str> {
    let id = serde_json::from_slice::<Raw<'_>>(text).ok()?.id?.get();
    let first = id.as_bytes().first()?;
    (*first == b'"' || *first == b'-' || first.is_ascii_digit()).then_some(id)
}

async fn call<N: Node + 'static>(context: &Rc<Context<N>>, caller: Caller, request: Request) -> Answer {
    let Some(method) = context.table.get(&request.method) else {
        let name: String = request.method.chars().take(128).collect();
        return Err(RpcError::new(METHOD_NOT_FOUND, format!("Method not found: '{name}'")));
    };
    if !method.allowed(context.running()) {
        let when = match method.when {
            When::Startup => "before framework is initialized. Use --wait-for-rpc on the command line",
            When::Runtime | When::Always => "after framework is initialized with framework_start_init RPC",
        };
        return Err(RpcError::new(WRONG_STATE, format!("Method may only be called {when}.")));
    }
    let answer = method.call(context.clone(), caller, request.params).await;
    match &answer {
        Ok(_) => tracing::debug!("{}: done", request.method),
        Err(e) => tracing::info!("{}: {} ({})", request.method, e.message, e.code),
    }
    answer
}

/// One reply: a compact object and a line feed.
fn reply(id: Option<&str>, result: &Answer) -> String {
    let id = id.unwrap_or("null");
    match result {
        Ok(value) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{value}}}\n"),
        Err(e) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}\n", e.to_json()),
    }
}

/// The reply to a stream that can not be cut any further.
pub(super) fn malformed(why: &super::frame::FrameError) -> String {
    use super::frame::FrameError;
    let (code, words) = match why {
        FrameError::Size(_) => (INVALID_REQUEST, "Invalid request"),
        _ => (PARSE_ERROR, "Parse error"),
    };
    reply(None, &Err(RpcError::new(code, format!("{words}: {why}"))))
}
