"""Texts to vectors over gRPC."""
