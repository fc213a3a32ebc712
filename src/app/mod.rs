//! The node: the only place where all layers meet. `serve` starts the reactors and the control thread's work, `turn` is
//! one core, `node` is the data path as the control plane sees it.

mod card;
mod cores;
mod devices;
mod doors;
mod exports;
mod node;
mod nvme;
mod serve;
mod stores;
mod turn;

pub use serve::{Options, ServeError, serve};
