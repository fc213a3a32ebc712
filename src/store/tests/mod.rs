//! Tests of whole slices.
