//! Dashboard resources; serves the web UI.
