"""Frames → visual tokens."""
