//! Seeds that once found a bug, with what it was.
