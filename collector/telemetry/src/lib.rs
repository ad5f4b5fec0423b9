//! How our own process measures itself.
