"""Parts of bench-logs.py."""
