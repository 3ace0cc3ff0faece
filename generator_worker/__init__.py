"""Answers a question from passages: by a language model, or by the passages' own sentences."""
