//! Exports that need something of the data path first: a namespace's bdev, a listener's address.

use super::{Bdev, Control};
use crate::cluster::command::Command;
use crate::cluster::error::Error;
use crate::cluster::model::{Listener, Namespace, Visibility};
use crate::cluster::names::Nqn;
use crate::cluster::node::{Node, Protocol};
use std::net::SocketAddr;
use uuid::Uuid;

/// What the caller says of a namespace; the rest comes from the bdev.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceSpec {
    /// The bdev's name, alias or UUID.
    pub bdev: String,
    /// `None`: the first free one.
    pub nsid: Option<u32>,
    /// `None`: the UUID.
    pub nguid: Option<[u8; 16]>,
    /// `None`: none.
    pub eui64: Option<[u8; 8]>,
    /// `None`: the bdev's.
    pub uuid: Option<Uuid>,
    /// `None`: the NSID.
    pub anagrpid: Option<u32>,
    /// Who sees it.
    pub visible: Visibility,
}

impl<N: Node> Control<N> {
    /// Adds a namespace; returns its NSID.
    pub async fn add_namespace(&self, nqn: &Nqn, spec: &NamespaceSpec) -> Result<u32, Error> {
        let _turn = self.turn.lock().await;
        if self.state().subsystem(nqn.as_str()).is_none() {
            return Err(Error::NoSubsystem(nqn.to_string()));
        }
        if spec.nsid == Some(0) {
            return Err(Error::Range { field: "nsid", value: 0, min: 1, max: u64::from(u32::MAX) - 1 });
        }
        let bdev = self.bdev(&spec.bdev)?;
        let uuid = spec.uuid.unwrap_or_else(|| bdev.uuid());
        let namespace = Namespace {
            nsid: spec.nsid.unwrap_or(0),
            volume: bdev.id(),
            store: match &bdev {
                Bdev::Device { .. } => None,
                Bdev::Volume { store, .. } => Some(store.uuid),
            },
            bdev: bdev.name(),
            nguid: spec.nguid.unwrap_or(*uuid.as_bytes()),
            eui64: spec.eui64.unwrap_or_default(),
            uuid,
            anagrpid: spec.anagrpid.unwrap_or(0),
            visible: spec.visible.clone(),
        };
        self.commit(&Command::AddNamespace(nqn.clone(), namespace)).await?;
        let state = self.state();
        let spaces = state.subsystem(nqn.as_str()).map(|s| &s.namespaces);
        let added = spaces.and_then(|all| all.values().find(|n| n.volume == bdev.id()));
        Ok(added.expect("a namespace that was committed is in the state").nsid)
    }

    /// Adds a listener. The address is bound first, so that an error (in use, not ours) is the caller's answer.
    pub async fn add_listener(&self, nqn: &Nqn, addr: SocketAddr) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let state = self.state();
        let command = Command::AddListener(nqn.clone(), Listener { addr });
        state.apply(&command)?;
        let fresh = !state.addresses().contains_key(&addr);
        if fresh {
            let failed = |source| Error::Node { what: "listen on", object: addr.to_string(), source };
            self.node.listen(addr, Protocol::Nvme).await.map_err(failed)?;
        }
        let done = self.commit(&command).await;
        if fresh && done.is_err() {
            self.node.unlisten(addr).await;
        }
        done
    }
}
