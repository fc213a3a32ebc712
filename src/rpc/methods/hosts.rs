//! Who may reach a subsystem, and where: hosts and listeners.

use super::DONE;
use super::nvmf::{Address, AnaState, Which, address_json, existing, only_target, socket, without};
use crate::cluster::{Command, Node, Nqn};
use crate::rpc::context::{Context, nvmf_error};
use crate::rpc::error::Dialect;
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Value, json};
use std::rc::Rc;

params! {
    /// Of `nvmf_subsystem_add_listener` and `nvmf_subsystem_remove_listener`.
    pub struct ListenerParams {
        /// The subsystem.
        nqn: String,
        /// Where.
        listen_address: Address,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// TLS: refused.
        secure_channel: Option<bool>,
        /// How good the path is; `optimized`.
        ana_state: Option<AnaState>,
    }

    /// Of `nvmf_subsystem_add_host`.
    pub struct AddHost {
        /// The subsystem.
        nqn: String,
        /// The host's NQN.
        host: Nqn,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// A key for TLS: refused.
        psk: Option<String>,
        /// A key for authentication: refused.
        dhchap_key: Option<String>,
        /// A key for authentication of the controller: refused.
        dhchap_ctrlr_key: Option<String>,
    }

    /// Of `nvmf_subsystem_remove_host`.
    pub struct RemoveHost {
        /// The subsystem.
        nqn: String,
        /// The host's NQN.
        host: Nqn,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// Ignored: the host's commands under way are waited for.
        timeout_ms: Option<u64>,
    }

    /// Of `nvmf_subsystem_allow_any_host`.
    pub struct AllowAnyHost {
        /// The subsystem.
        nqn: String,
        /// Whether hosts that are not on the list may connect.
        allow_any_host: bool,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    let name = "nvmf_subsystem_add_listener";
    let doc = "Lets hosts reach a subsystem at an address.";
    vec![
        Method::new(name, doc, When::Runtime, Dialect::Nvmf, true, add_listener),
        Method::nvmf("nvmf_subsystem_remove_listener", "Takes an address back; its hosts are cut.", remove_listener),
        Method::nvmf("nvmf_subsystem_get_listeners", "Where a subsystem may be reached.", get_listeners),
        Method::nvmf("nvmf_subsystem_add_host", "Lets a host connect.", add_host),
        Method::nvmf("nvmf_subsystem_remove_host", "No longer lets a host connect.", remove_host),
        Method::nvmf("nvmf_subsystem_allow_any_host", "Whether any host may connect.", allow_any_host),
    ]
}

async fn add_listener<N: Node>(context: Rc<Context<N>>, p: ListenerParams) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    without(p.secure_channel == Some(true), "secure_channel")?;
    let nqn = existing(&context, &p.nqn)?;
    let addr = socket(&p.listen_address)?;
    context.control.add_listener(&nqn, addr).await.map(|()| DONE).map_err(nvmf_error)
}

async fn remove_listener<N: Node>(context: Rc<Context<N>>, p: ListenerParams) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let addr = socket(&p.listen_address)?;
    context.control.change(Command::RemoveListener(nqn, addr)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn get_listeners<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let state = context.control.state();
    let subsystem = state.subsystem(nqn.as_str());
    let listeners = subsystem.into_iter().flat_map(|s| &s.listeners);
    let ana = subsystem.is_some_and(|s| s.ana_reporting);
    let groups = subsystem.map_or(0, |s| s.max_namespaces);
    let one = |addr| {
        let mut all = json!({"address": address_json(addr)});
        if ana {
            let state = |group| json!({"ana_group": group, "ana_state": "optimized"});
            all["ana_states"] = (1..=groups).map(state).collect();
        }
        all
    };
    Ok(listeners.map(|l| one(l.addr)).collect::<Value>())
}

async fn add_host<N: Node>(context: Rc<Context<N>>, p: AddHost) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let keyed = p.psk.is_some() || p.dhchap_key.is_some() || p.dhchap_ctrlr_key.is_some();
    without(keyed, "a host's key (psk, dhchap_key, dhchap_ctrlr_key)")?;
    let nqn = existing(&context, &p.nqn)?;
    context.control.change(Command::AddHost(nqn, p.host)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn remove_host<N: Node>(context: Rc<Context<N>>, p: RemoveHost) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    context.control.change(Command::RemoveHost(nqn, p.host)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn allow_any_host<N: Node>(context: Rc<Context<N>>, p: AllowAnyHost) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let command = Command::AllowAnyHost(nqn, p.allow_any_host);
    context.control.change(command).await.map(|()| DONE).map_err(nvmf_error)
}
