"""Vectors that need not be made twice: memory, then Redis, then one flight to the embedder."""
