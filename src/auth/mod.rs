//! How two sides prove to each other who they are. Pure: random bytes, names and secrets come in, answers go out; the
//! protocols carry them in keys or messages of their own.

pub mod chap;
