//! Samples in columns.
