//! From the journal's state to a working node, and what is tried again later.

use super::{Control, EventKind, Problem};
use crate::cluster::error::Error;
use crate::cluster::node::{Node, Protocol};
use std::net::SocketAddr;

impl<N: Node> Control<N> {
    /// Opens what the state has: devices in the order they were made (a base before its wrapper), the stores on them,
    /// then the exports. What can not be opened becomes a problem and stops nothing else.
    pub async fn start(&self) {
        let _turn = self.turn.lock().await;
        let state = self.state();
        for device in state.devices() {
            let based = device.spec.base().is_none_or(|base| self.devices.borrow().contains_key(&base));
            let opened = if based {
                self.open(device).await
            } else {
                Err(Error::Conflict { field: "base bdev", why: "could not be opened" })
            };
            match opened {
                Ok(()) => self.note(EventKind::Register, device.name.to_string()),
                Err(e) => self.complain(Problem::Device(device.id), e),
            }
        }
        for device in state.devices() {
            if self.devices.borrow().contains_key(&device.id) {
                self.examine(device.id).await;
            } else if let Some(store) = state.store_on(device.id) {
                self.complain(Problem::Store(store.uuid), Error::StoreDown(store.name.to_string()));
            }
        }
        self.node.publish(self.state()).await;
        for (addr, protocol) in self.state().addresses() {
            self.bind(addr, protocol).await;
        }
    }

    /// Tries again to listen where that failed (an interface may have come up since).
    pub async fn mend(&self) {
        let _turn = self.turn.lock().await;
        let down: Vec<SocketAddr> = self
            .problems
            .borrow()
            .keys()
            .filter_map(|p| match p {
                Problem::Listener(addr) => Some(*addr),
                _ => None,
            })
            .collect();
        let addresses = self.state().addresses();
        for addr in down {
            if let Some(protocol) = addresses.get(&addr) {
                self.bind(addr, *protocol).await;
            }
        }
    }

    async fn bind(&self, addr: SocketAddr, protocol: Protocol) {
        let known = self.problems.borrow().contains_key(&Problem::Listener(addr));
        match self.node.listen(addr, protocol).await {
            Ok(()) => drop(self.problems.borrow_mut().remove(&Problem::Listener(addr))),
            Err(_) if known => {}
            Err(source) => {
                let e = Error::Node { what: "listen on", object: addr.to_string(), source };
                self.complain(Problem::Listener(addr), e);
            }
        }
    }
}
