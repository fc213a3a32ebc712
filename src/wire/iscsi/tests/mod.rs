//! PDUs written byte by byte from RFC 7143, text by hand, and everything that can be done to either.

mod golden;
mod pdus;
mod texts;
