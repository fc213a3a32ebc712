//! What every method works on: the control plane, the method table, the log's knobs, and whether the node has started.

use super::error::{Dialect, RpcError};
use super::logging::Logging;
use super::table::Table;
use crate::cluster::{Control, Error, Node};
use std::rc::Rc;
use tokio::sync::watch;

/// A node's remote procedures.
pub struct Context<N> {
    /// The control plane.
    pub control: Control<N>,
    /// The methods.
    pub table: Table<N>,
    /// The log's knobs.
    pub logging: Logging,
    /// True once the node has started; false while it waits for `framework_start_init`.
    running: watch::Sender<bool>,
}

impl<N: Node + 'static> Context<N> {
    /// The procedures of a node that has not started yet.
    pub fn new(control: Control<N>, logging: Logging) -> Rc<Context<N>> {
        Rc::new(Context { control, table: Table::new(), logging, running: watch::Sender::new(false) })
    }

    /// True once the node has started.
    pub fn running(&self) -> bool {
        *self.running.borrow()
    }

    /// Opens what the state directory remembers; from then on runtime methods work. Must be called once only.
    pub async fn start(&self) {
        self.control.start().await;
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
