"""The TAM model in the host: vision tower, visual tokens of a batch, training loss, what trains."""
