//! Memory of the data path: one arena per core on hugepages where there are any, cut into per-core pools of aligned
//! buffers. After start-up nothing here asks the system for memory.

mod arena;
mod mapping;
mod numa;
mod pool;
mod sizing;

pub use arena::{Arena, Span};
pub use mapping::{Backing, Commit, HUGE_PAGE, Mapping, advise_huge, zeroes};
pub use pool::{Buf, Class, Pool, PoolStats};
pub use sizing::{CLASSES_MAX, SIZE_MAX, Sizing, SizingError};
