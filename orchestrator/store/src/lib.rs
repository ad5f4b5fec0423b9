//! Revisioned key-value store with watch.
