//! Segmented, checksummed log.
