"""Parts of bench-metrics.py: servers, loads, queries, measurements."""
