//! The ground floor: receives, enriches and hands on telemetry.
