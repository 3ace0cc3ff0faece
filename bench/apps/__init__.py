"""Servers that other frameworks make of sentence-transformers; each runs in a venv of its own."""
