"""Modules that several benchmarks share: pages, pictures, records, timing, usage of processes, and the judge."""
