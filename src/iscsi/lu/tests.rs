//! Commands against a unit with memory behind it.

mod basics;
mod blocks;
mod copies;
mod hostile;
mod modes;
mod reports;
mod reservations;
mod rig;
mod sanitizing;
mod space;
