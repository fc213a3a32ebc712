//! Tests of whole slices on a small disk that forgets, against a model that knows what every sector may hold.

mod atomic;
mod basics;
mod damage;
mod disk;
mod harness;
mod random;
