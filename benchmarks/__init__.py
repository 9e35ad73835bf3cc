"""Benchmarks against the alternatives: `python -m benchmarks.NAME`."""
