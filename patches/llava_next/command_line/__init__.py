"""Arguments of the host's scripts, and what is checked and told before any weight is loaded."""
