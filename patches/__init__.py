"""Host patches."""
