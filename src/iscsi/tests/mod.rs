//! The target on nets in memory, against initiators written by hand.

mod commands;
mod data;
mod functions;
mod fuzz;
mod login;
mod rig;
mod sessions;
mod volumes;
