"""Fuzz commands: ``python -m tests.fuzz.video``, ``tests.fuzz.images`` and ``tests.fuzz.config``."""
