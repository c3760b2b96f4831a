"""Fuzz commands: ``python -m tests.fuzz.video``, and so for ``images``, ``config`` and ``replies``."""
