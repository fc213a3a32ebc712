//! What a refused call is answered with: JSON-RPC codes, SPDK's codes and the words its clients look for, then the detail.
//! The one place where errors of the layers below become codes and sentences.

use super::params::Problem;
use crate::cluster::{Error, NodeError};
use serde_json::{Value, json};

/// Not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but not a request.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Wrong parameters.
pub const INVALID_PARAMS: i32 = -32602;
/// Anything else, and where SPDK says it.
pub const INTERNAL_ERROR: i32 = -32603;
/// The method exists but not in this state.
pub const WRONG_STATE: i32 = -1;

/// Which of SPDK's dialects a method speaks when its parameters are wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// bdev and lvol: -32603 for parameters that do not decode, negative errno for the rest.
    Bdev,
    /// nvmf and everything else: -32602 "Invalid parameters".
    Nvmf,
}

/// An error reply.
#[derive(Clone, PartialEq, Debug)]
pub struct RpcError {
    /// The code.
    pub code: i32,
    /// For people, and for clients that search it.
    pub message: String,
    /// For programs.
    pub data: Option<Value>,
}

impl RpcError {
    /// A reply without data.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), data: None }
    }

    /// "Invalid parameters: detail".
    pub fn params(detail: impl std::fmt::Display) -> RpcError {
        RpcError::new(INVALID_PARAMS, format!("Invalid parameters: {detail}"))
    }

    /// Negative errno with its text and the detail.
    pub fn errno(errno: i32, detail: impl std::fmt::Display) -> RpcError {
        RpcError::new(-errno, format!("{}: {detail}", errno_text(errno)))
    }

    /// Parameters that do not decode.
    pub fn undecodable(dialect: Dialect, problem: &Problem) -> RpcError {
        let (code, words) = match dialect {
            Dialect::Bdev => (INTERNAL_ERROR, "spdk_json_decode_object failed"),
            Dialect::Nvmf => (INVALID_PARAMS, "Invalid parameters"),
        };
        RpcError { code, message: format!("{words}: {problem}"), data: Some(problem.data()) }
    }

    /// As a JSON-RPC error object.
    pub fn to_json(&self) -> Value {
        match &self.data {
            None => json!({"code": self.code, "message": self.message}),
            Some(data) => json!({"code": self.code, "message": self.message, "data": data}),
        }
    }

    /// What the control plane refused.
    pub fn refused(dialect: Dialect, error: &Error) -> RpcError {
        let reply = match error {
            Error::NoSubsystem(nqn) => RpcError::params(format!("Subsystem with NQN '{nqn}' not found")),
            Error::SubsystemExists(nqn) => {
                RpcError::new(INTERNAL_ERROR, format!("Unable to create subsystem {nqn}: it exists"))
            }
            Error::TransportExists => RpcError::new(INTERNAL_ERROR, "Transport type 'TCP' already exists"),
            Error::NoTransport => RpcError::params("no TCP transport; nvmf_create_transport makes it"),
            Error::NoNamespace { .. }
            | Error::NoListener { .. }
            | Error::NoHost { .. }
            | Error::NoReferral(_)
            | Error::Missing { .. } => RpcError::params(format!("{error} not found")),
            Error::NamespaceExists { .. }
            | Error::ListenerExists { .. }
            | Error::HostExists { .. }
            | Error::Exists { .. }
            | Error::ReferralExists(_) => RpcError::params(format!("{error} already exists")),
            Error::Discovery(_) => RpcError::params(error),
            Error::NoSpace { .. } => RpcError::new(INVALID_PARAMS, format!("{}: {error}", errno_text(libc::ENOSPC))),
            Error::Journal(_) => RpcError::errno(libc::EIO, error),
            _ => match (dialect, errno_of(error)) {
                (Dialect::Nvmf, errno) => RpcError::params(format!("{}: {error}", errno_text(errno))),
                (Dialect::Bdev, errno) => RpcError::errno(errno, error),
            },
        };
        RpcError { data: data_of(error), ..reply }
    }
}

/// The error number that says it best.
fn errno_of(error: &Error) -> i32 {
    match error {
        Error::NoBdev(_) | Error::WrongKind { .. } | Error::NoStore(_) | Error::StoreDown(_) => libc::ENODEV,
        Error::BdevExists(_) | Error::StoreExists(_) | Error::VolumeExists(_) | Error::IdCollision { .. } => {
            libc::EEXIST
        }
        Error::BdevInUse { .. } => libc::EBUSY,
        Error::AddressTaken { .. } => libc::EADDRINUSE,
        Error::Limit { .. } => libc::ENOMEM,
        Error::Node { source, .. } => node_errno(source),
        _ => libc::EINVAL,
    }
}

fn node_errno(error: &NodeError) -> i32 {
    match error {
        NodeError::Os { errno, .. } if *errno > 0 => *errno,
        NodeError::Os { .. } | NodeError::Block { .. } | NodeError::Damaged(_) => libc::EIO,
        NodeError::NotAStore | NodeError::Gone => libc::ENODEV,
        NodeError::Newer { .. } | NodeError::Unsupported(_) => libc::ENOTSUP,
        NodeError::Size(_) => libc::EINVAL,
        NodeError::Limit(_) => libc::ENOMEM,
        NodeError::Stopping => libc::ESHUTDOWN,
    }
}

/// The text of an error number, without the number that Rust appends.
pub fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.rsplit_once(" (os error").map_or(text.clone(), |(head, _)| head.to_owned())
}

/// The parameter at fault, for programs.
fn data_of(error: &Error) -> Option<Value> {
    match error {
        Error::Range { field, value, min, max } => {
            Some(json!({"parameter": field, "value": value, "min": min, "max": max}))
        }
        Error::Conflict { field, why } => Some(json!({"parameter": field, "reason": why})),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_codes_and_words_they_match_on() {
        let bdev = |e| RpcError::refused(Dialect::Bdev, &e);
        let nvmf = |e| RpcError::refused(Dialect::Nvmf, &e);
        let missing = bdev(Error::NoBdev("x".into()));
        assert_eq!((missing.code, missing.message.as_str()), (-19, "No such device: bdev 'x'"));
        let exists = bdev(Error::BdevExists("x".into()));
        assert_eq!((exists.code, exists.message.starts_with("File exists")), (-17, true));
        let busy = bdev(Error::BdevInUse { name: "x".into(), user: "a store" });
        assert_eq!((busy.code, busy.message.starts_with("Device or resource busy")), (-16, true));
        let again = nvmf(Error::TransportExists);
        assert_eq!((again.code, again.message.as_str()), (-32603, "Transport type 'TCP' already exists"));
        let unknown = nvmf(Error::NoSubsystem("nqn.x".into()));
        assert_eq!(unknown.code, INVALID_PARAMS);
        assert_eq!(unknown.message, "Invalid parameters: Subsystem with NQN 'nqn.x' not found");
        let open = bdev(Error::Node {
            what: "open bdev",
            object: "A".into(),
            source: NodeError::Os { what: "open", errno: libc::ENOENT },
        });
        assert_eq!((open.code, open.message.starts_with("No such file or directory: open bdev 'A'")), (-2, true));
        let full = bdev(Error::NoSpace { store: "s".into(), free: 1, asked: 2 });
        assert!(full.message.starts_with("No space left on device"), "{}", full.message);
        let range = nvmf(Error::Range { field: "nsid", value: 9, min: 1, max: 8 });
        assert_eq!(range.data.unwrap()["parameter"], "nsid");
    }
}
