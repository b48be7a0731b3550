//! Tests of segments on the real disk.
