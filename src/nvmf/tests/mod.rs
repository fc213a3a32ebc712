//! Tests of the target through its whole stack: a scripted host on an in-memory net, volumes in memory, any number of
//! cores. `rig` is the machinery; each other file is one family of behaviour.

mod commands;
mod fabrics;
mod fuzz;
mod hostile;
mod lifecycle;
mod masking;
mod rig;
mod transport;
