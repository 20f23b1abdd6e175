"""Synthetic workloads: models learnt from a trace, drawn from, and written as small JSON files."""
