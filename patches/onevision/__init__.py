"""TAM on the LlavaOnevision classes of transformers."""
