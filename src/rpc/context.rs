//! What every method works on: the control plane, the method table, the log's knobs, and whether the node has started.

use super::error::{Dialect, RpcError};
use super::logging::Logging;
use super::table::Table;
use crate::cluster::{Control, Declared, Error, Node};
use std::rc::Rc;
use tokio::sync::watch;

/// Who calls: what is shown depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Root or the node's own user, who could read the state directory as well: sees secrets.
    Admin,
    /// A member of the socket's group.
    Operator,
}

/// A node's remote procedures.
pub struct Context<N> {
    /// The control plane.
    pub control: Control<N>,
    /// The methods.
    pub table: Table<N>,
    /// The log's knobs.
    pub logging: Logging,
    /// What the configuration file declares to exist.
    declared: Declared,
    /// True once the node has started; false while it waits for `framework_start_init`.
    running: watch::Sender<bool>,
}

impl<N: Node + 'static> Context<N> {
    /// The procedures of a node that has not started yet.
    pub fn new(control: Control<N>, logging: Logging, declared: Declared) -> Rc<Context<N>> {
        Rc::new(Context { control, table: Table::new(), logging, declared, running: watch::Sender::new(false) })
    }

    /// True once the node has started.
    pub fn running(&self) -> bool {
        *self.running.borrow()
    }

    /// Opens what the state directory remembers and makes what the configuration file declares beyond it; from then on
    /// runtime methods work. Must be called once only.
    pub async fn start(&self) {
        self.control.start().await;
        for (what, why) in self.control.declare(&self.declared).await {
            tracing::error!("configuration: {what} could not be made: {why}");
        }
        self.running.send_replace(true);
    }

    /// Returns when the node has started.
    pub async fn started(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`, so waiting can not fail.
        let _ = running.wait_for(|running| *running).await;
    }
}

/// A refusal of the control plane in the words of the bdev and lvol methods.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` takes
pub fn bdev_error(error: Error) -> RpcError {
    RpcError::refused(Dialect::Bdev, &error)
}

/// A refusal of the control plane in the words of the nvmf methods.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` takes
pub fn nvmf_error(error: Error) -> RpcError {
    RpcError::refused(Dialect::Nvmf, &error)
}
