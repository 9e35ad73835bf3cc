"""Measurements against what one would use instead: `python -m benchmarks.NAME`."""
