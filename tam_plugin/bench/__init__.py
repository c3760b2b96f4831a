"""Benchmarks as commands: each way of doing a job is timed beside the host's way, in the same run."""
