//! What iSCSI target nodes are mapped to: portal groups, initiator groups, and auth groups with their secrets.

use super::iscsi::{chap, chap_json, host_text, portal};
use super::{DONE, Nothing};
use crate::cluster::Node;
use crate::cluster::iscsi::{AuthGroup, Change, Initiator, InitiatorGroup, Iscsi, Netmask, PortalGroup, Secret};
use crate::rpc::context::{Caller, Context, nvmf_error};
use crate::rpc::error::RpcError;
use crate::rpc::json::Json;
use crate::rpc::params::{FromJson, Problem, params};
use crate::rpc::table::{Answer, Method};
use serde_json::{Value, json};
use std::rc::Rc;

impl FromJson for Initiator {
    const KIND: &'static str = "string: ANY, an initiator's name, or either behind '!'";
    fn from_json(json: Json) -> Result<Initiator, Problem> {
        Initiator::new(&String::from_json(json)?).map_err(|e| Problem::new(format!("is refused: {e}")))
    }
}

impl FromJson for Netmask {
    const KIND: &'static str = "string: ANY, IP address, or address/bits";
    fn from_json(json: Json) -> Result<Netmask, Problem> {
        Netmask::new(&String::from_json(json)?).map_err(|e| Problem::new(format!("is refused: {e}")))
    }
}

params! {
    /// Which group.
    pub struct Tag {
        /// Its tag.
        tag: u32,
    }

    /// An address.
    pub struct Portal {
        /// IP address; IPv6 in brackets or without, `*` for every address.
        host: String,
        /// Port, as a string.
        port: String,
    }

    /// Of `iscsi_create_portal_group`.
    pub struct CreatePortalGroup {
        /// Its tag, 1 to 65535.
        tag: u32,
        /// Where.
        portals: Vec<Portal>,
        /// Discovery does not show it; false unless given.
        private: Option<bool>,
        /// Nobody may connect until `iscsi_start_portal_group`; false unless given.
        wait: Option<bool>,
    }

    /// Of `iscsi_portal_group_set_auth`.
    pub struct SetAuth {
        /// The portal group.
        tag: u32,
        /// CHAP is not offered; false unless given.
        disable_chap: Option<bool>,
        /// CHAP is required; false unless given.
        require_chap: Option<bool>,
        /// The target proves itself, too; false unless given.
        mutual_chap: Option<bool>,
        /// The auth group with the secrets; 0, none, unless given.
        chap_group: Option<u32>,
    }

    /// Of `iscsi_create_initiator_group`.
    pub struct CreateInitiatorGroup {
        /// Its tag, not 0.
        tag: u32,
        /// Names; the first that matches decides.
        initiators: Vec<Initiator>,
        /// Networks.
        netmasks: Vec<Netmask>,
    }

    /// Of `iscsi_initiator_group_add_initiators` and `iscsi_initiator_group_remove_initiators`.
    pub struct Initiators {
        /// The initiator group.
        tag: u32,
        /// Names.
        initiators: Option<Vec<Initiator>>,
        /// Networks.
        netmasks: Option<Vec<Netmask>>,
    }

    /// A user's secrets.
    pub struct SecretParams {
        /// The initiator's CHAP name.
        user: String,
        /// Its secret, 12 to 128 bytes.
        secret: String,
        /// The target's CHAP name, for mutual CHAP.
        muser: Option<String>,
        /// The target's secret; not the initiator's.
        msecret: Option<String>,
    }

    /// Of `iscsi_create_auth_group`.
    pub struct CreateAuthGroup {
        /// Its tag, not 0.
        tag: u32,
        /// Secrets of users.
        secrets: Option<Vec<SecretParams>>,
    }

    /// Of `iscsi_auth_group_add_secret`.
    pub struct AddSecret {
        /// The auth group.
        tag: u32,
        /// The initiator's CHAP name.
        user: String,
        /// Its secret, 12 to 128 bytes.
        secret: String,
        /// The target's CHAP name, for mutual CHAP.
        muser: Option<String>,
        /// The target's secret; not the initiator's.
        msecret: Option<String>,
    }

    /// Of `iscsi_auth_group_remove_secret`.
    pub struct RemoveSecret {
        /// The auth group.
        tag: u32,
        /// The initiator's CHAP name.
        user: String,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::nvmf("iscsi_create_portal_group", "Listens on addresses for iSCSI.", create_portal_group),
        Method::nvmf("iscsi_start_portal_group", "Lets hosts connect to a portal group.", start_portal_group),
        Method::nvmf("iscsi_delete_portal_group", "Deletes a portal group; its sessions end.", delete_portal_group),
        Method::nvmf("iscsi_get_portal_groups", "Portal groups by tag.", get_portal_groups),
        Method::nvmf("iscsi_portal_group_set_auth", "How initiators prove themselves for discovery.", set_auth),
        Method::nvmf("iscsi_create_initiator_group", "Names initiators and networks.", create_initiator_group),
        Method::nvmf("iscsi_initiator_group_add_initiators", "Names more of them.", add_initiators),
        Method::nvmf("iscsi_initiator_group_remove_initiators", "Names fewer of them.", remove_initiators),
        Method::nvmf("iscsi_delete_initiator_group", "Deletes an initiator group.", delete_initiator_group),
        Method::nvmf("iscsi_get_initiator_groups", "Initiator groups by tag.", get_initiator_groups),
        Method::nvmf("iscsi_create_auth_group", "Makes a group of CHAP secrets.", create_auth_group),
        Method::nvmf("iscsi_auth_group_add_secret", "Adds a user's secrets.", add_secret),
        Method::nvmf("iscsi_auth_group_remove_secret", "Removes a user's secrets.", remove_secret),
        Method::nvmf("iscsi_delete_auth_group", "Deletes a group of CHAP secrets.", delete_auth_group),
        Method::for_caller("iscsi_get_auth_groups", "Auth groups; root sees the secrets.", get_auth_groups),
    ]
}

/// A portal group's tag as the protocol has it.
fn portal_tag(tag: u32) -> Result<u16, RpcError> {
    u16::try_from(tag).map_err(|_| RpcError::params(format!("a portal group's tag is 1 to 65535, not {tag}")))
}

async fn change<N: Node>(context: &Context<N>, change: Change) -> Answer {
    context.control.change_iscsi(change).await.map(|()| DONE).map_err(nvmf_error)
}

async fn create_portal_group<N: Node>(context: Rc<Context<N>>, p: CreatePortalGroup) -> Answer {
    let group = PortalGroup {
        tag: portal_tag(p.tag)?,
        portals: p.portals.iter().map(|p| portal(&p.host, &p.port)).collect::<Result<_, _>>()?,
        private: p.private.unwrap_or(false),
        started: !p.wait.unwrap_or(false),
        auth: None,
    };
    context.control.create_portal_group(group).await.map(|()| DONE).map_err(nvmf_error)
}

async fn start_portal_group<N: Node>(context: Rc<Context<N>>, p: Tag) -> Answer {
    context.control.start_portal_group(portal_tag(p.tag)?).await.map(|()| DONE).map_err(nvmf_error)
}

async fn delete_portal_group<N: Node>(context: Rc<Context<N>>, p: Tag) -> Answer {
    change(&context, Change::DeletePortalGroup(portal_tag(p.tag)?)).await
}

fn portal_group_json(g: &PortalGroup) -> Value {
    let portals: Vec<Value> =
        g.portals.iter().map(|a| json!({"host": host_text(a.ip()), "port": a.port().to_string()})).collect();
    json!({"tag": g.tag, "portals": portals, "private": g.private})
}

async fn get_portal_groups<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(context.control.state().iscsi().portal_groups().map(|g| portal_group_json(g)).collect())
}

async fn set_auth<N: Node>(context: Rc<Context<N>>, p: SetAuth) -> Answer {
    let auth = chap(p.disable_chap, p.require_chap, p.mutual_chap, p.chap_group);
    change(&context, Change::SetPortalGroupAuth(portal_tag(p.tag)?, auth)).await
}

async fn create_initiator_group<N: Node>(context: Rc<Context<N>>, p: CreateInitiatorGroup) -> Answer {
    let group = InitiatorGroup { tag: p.tag, initiators: p.initiators, netmasks: p.netmasks };
    change(&context, Change::CreateInitiatorGroup(group)).await
}

async fn add_initiators<N: Node>(context: Rc<Context<N>>, p: Initiators) -> Answer {
    let (names, netmasks) = (p.initiators.unwrap_or_default(), p.netmasks.unwrap_or_default());
    change(&context, Change::AddInitiators(p.tag, names, netmasks)).await
}

async fn remove_initiators<N: Node>(context: Rc<Context<N>>, p: Initiators) -> Answer {
    let (names, netmasks) = (p.initiators.unwrap_or_default(), p.netmasks.unwrap_or_default());
    change(&context, Change::RemoveInitiators(p.tag, names, netmasks)).await
}

async fn delete_initiator_group<N: Node>(context: Rc<Context<N>>, p: Tag) -> Answer {
    change(&context, Change::DeleteInitiatorGroup(p.tag)).await
}

fn initiator_group_json(g: &InitiatorGroup) -> Value {
    let initiators: Vec<&str> = g.initiators.iter().map(Initiator::as_str).collect();
    let netmasks: Vec<&str> = g.netmasks.iter().map(Netmask::as_str).collect();
    json!({"tag": g.tag, "initiators": initiators, "netmasks": netmasks})
}

async fn get_initiator_groups<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(context.control.state().iscsi().initiator_groups().map(|g| initiator_group_json(g)).collect())
}

fn secret(p: SecretParams) -> Result<Secret, RpcError> {
    let mutual = match (p.muser, p.msecret) {
        (Some(user), Some(secret)) => Some((user, secret)),
        (None, None) => None,
        _ => return Err(RpcError::params("muser and msecret go together")),
    };
    Ok(Secret { user: p.user, secret: p.secret, mutual })
}

async fn create_auth_group<N: Node>(context: Rc<Context<N>>, p: CreateAuthGroup) -> Answer {
    let secrets = p.secrets.unwrap_or_default().into_iter().map(secret).collect::<Result<_, _>>()?;
    change(&context, Change::CreateAuthGroup(AuthGroup { tag: p.tag, secrets })).await
}

async fn add_secret<N: Node>(context: Rc<Context<N>>, p: AddSecret) -> Answer {
    let secret = secret(SecretParams { user: p.user, secret: p.secret, muser: p.muser, msecret: p.msecret })?;
    change(&context, Change::AddSecret(p.tag, secret)).await
}

async fn remove_secret<N: Node>(context: Rc<Context<N>>, p: RemoveSecret) -> Answer {
    change(&context, Change::RemoveSecret(p.tag, p.user)).await
}

async fn delete_auth_group<N: Node>(context: Rc<Context<N>>, p: Tag) -> Answer {
    change(&context, Change::DeleteAuthGroup(p.tag)).await
}

/// What stands in the place of a secret for those who must not see it.
const HIDDEN: &str = "********";

fn auth_group_json(g: &AuthGroup, caller: Caller) -> Value {
    let shown = |secret: &str| if caller == Caller::Admin { secret.to_owned() } else { HIDDEN.to_owned() };
    let one = |s: &Secret| {
        let mut all = json!({"user": s.user, "secret": shown(&s.secret)});
        if let Some((user, secret)) = &s.mutual {
            all["muser"] = user.as_str().into();
            all["msecret"] = shown(secret).into();
        }
        all
    };
    json!({"tag": g.tag, "secrets": g.secrets.iter().map(one).collect::<Vec<_>>()})
}

async fn get_auth_groups<N: Node>(context: Rc<Context<N>>, caller: Caller, _: Nothing) -> Answer {
    Ok(context.control.state().iscsi().auth_groups().map(|g| auth_group_json(g, caller)).collect())
}

/// The calls that make the groups again. Who must not see secrets gets auth groups without any: those who have to
/// prove something by them can not log in until the secrets are set again.
pub(super) fn config(iscsi: &Iscsi, caller: Caller) -> Vec<Value> {
    let call = |method: &str, params: Value| json!({"method": method, "params": params});
    let mut calls = Vec::new();
    for group in iscsi.portal_groups() {
        let mut params = portal_group_json(group);
        if !group.started {
            params["wait"] = true.into();
        }
        calls.push(call("iscsi_create_portal_group", params));
        if let Some(auth) = &group.auth {
            let mut params = json!({"tag": group.tag});
            for (name, value) in chap_json(*auth) {
                params[name] = value;
            }
            calls.push(call("iscsi_portal_group_set_auth", params));
        }
    }
    calls.extend(iscsi.initiator_groups().map(|g| call("iscsi_create_initiator_group", initiator_group_json(g))));
    calls.extend(iscsi.auth_groups().map(|g| match caller {
        Caller::Admin => call("iscsi_create_auth_group", auth_group_json(g, caller)),
        Caller::Operator => call("iscsi_create_auth_group", json!({"tag": g.tag})),
    }));
    calls
}
