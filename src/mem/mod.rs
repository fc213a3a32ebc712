//! Memory of the data path: one arena per node on hugepages where there are any, cut into per-core pools of aligned
//! buffers. After start-up nothing here asks the system for memory.

mod arena;
mod pool;

pub use arena::{Arena, Backing};
pub use pool::{Buf, Class, Pool, PoolStats};
