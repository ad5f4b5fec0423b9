//! Pod network, service proxy, DNS.
