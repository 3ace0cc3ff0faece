"""Reproducible measurements of speed and quality: `python -m bench`."""
