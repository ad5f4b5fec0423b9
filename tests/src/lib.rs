//! The harness and the end-to-end run.
