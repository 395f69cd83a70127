"""What is measured: one module a benchmark, run as `python -m benchmarks.runs.NAME`; each ends with one JSON line."""
