"""Fuzz commands: ``python -m tests.fuzz.video`` and ``python -m tests.fuzz.config``."""
