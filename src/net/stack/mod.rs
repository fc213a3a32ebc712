//! TCP/IP in this process, over the frames of a [`Port`].

mod port;

pub use port::{Port, PortFacts, PortStats};
