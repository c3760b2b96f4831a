"""Checkpoints in the host's layout: loaded, upgraded, saved in part, merged."""
