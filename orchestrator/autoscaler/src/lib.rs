//! HPA and decision records.
