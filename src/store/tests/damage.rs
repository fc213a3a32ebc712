//! Damage on the medium: detected, never served as data, never dropped in silence.
