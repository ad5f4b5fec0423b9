//! HTTP APIs for queries.
