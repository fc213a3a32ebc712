//! The log's levels and flags.

use super::{DONE, Nothing};
use crate::cluster::Node;
use crate::rpc::context::Context;
use crate::rpc::error::RpcError;
use crate::rpc::logging::{FLAGS, Level};
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Map, Value};
use std::rc::Rc;

choice! {
    /// A level by name.
    pub enum LevelName {
        /// What failed.
        Error = "ERROR",
        /// What may become a failure.
        Warning = "WARNING",
        /// What an operator wants to know of.
        Notice = "NOTICE",
        /// More of it.
        Info = "INFO",
        /// What a developer wants to know of.
        Debug = "DEBUG",
    }
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Level {
        Level::ALL[name as usize]
    }
}

params! {
    /// Of the setters of levels.
    pub struct SetLevel {
        /// The level.
        level: LevelName,
    }

    /// Of the setters of flags.
    pub struct SetFlag {
        /// A part of the node, or `all`.
        flag: String,
    }

    /// Of `log_enable_timestamps`.
    pub struct Timestamps {
        /// Whether lines begin with the time.
        enabled: bool,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    let methods = vec![
        Method::core("log_set_level", "Sets what is logged.", set_level),
        Method::core("log_get_level", "What is logged.", get_level),
        Method::core("log_set_print_level", "Sets what is printed.", set_print_level),
        Method::core("log_get_print_level", "What is printed.", get_print_level),
        Method::core("log_set_flag", "Makes a part of the node log everything.", set_flag),
        Method::core("log_clear_flag", "Makes a part of the node log as the others.", clear_flag),
        Method::core("log_get_flags", "Which parts log everything.", get_flags),
        Method::core("log_enable_timestamps", "Whether lines begin with the time.", timestamps),
    ];
    methods.into_iter().map(|m: Method<N>| m.when(When::Always)).collect()
}

async fn set_level<N: Node>(context: Rc<Context<N>>, p: SetLevel) -> Answer {
    context.logging.change(|s| s.level = p.level.into());
    Ok(DONE)
}

async fn get_level<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(Value::from(context.logging.get().level.word()))
}

async fn set_print_level<N: Node>(context: Rc<Context<N>>, p: SetLevel) -> Answer {
    context.logging.change(|s| s.print_level = p.level.into());
    Ok(DONE)
}

async fn get_print_level<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(Value::from(context.logging.get().print_level.word()))
}

/// The flags a name stands for.
fn flags(name: &str) -> Result<Vec<&'static str>, RpcError> {
    match FLAGS.iter().find(|flag| **flag == name) {
        Some(flag) => Ok(vec![*flag]),
        None if name == "all" => Ok(FLAGS.to_vec()),
        None => Err(RpcError::params(format!("flag '{name}' is unknown; known are all, {}", FLAGS.join(", ")))),
    }
}

async fn set_flag<N: Node>(context: Rc<Context<N>>, p: SetFlag) -> Answer {
    let flags = flags(&p.flag)?;
    context.logging.change(|s| s.flags.extend(flags));
    Ok(DONE)
}

async fn clear_flag<N: Node>(context: Rc<Context<N>>, p: SetFlag) -> Answer {
    let flags = flags(&p.flag)?;
    context.logging.change(|s| s.flags.retain(|flag| !flags.contains(flag)));
    Ok(DONE)
}

async fn get_flags<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let on = context.logging.get().flags;
    let all: Map<String, Value> = FLAGS.iter().map(|f| ((*f).to_owned(), on.contains(f).into())).collect();
    Ok(Value::Object(all))
}

async fn timestamps<N: Node>(context: Rc<Context<N>>, p: Timestamps) -> Answer {
    context.logging.change(|s| s.timestamps = p.enabled);
    Ok(DONE)
}
