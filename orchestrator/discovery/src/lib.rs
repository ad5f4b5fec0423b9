//! Cluster objects to scrape targets and identities.
