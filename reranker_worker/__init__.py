"""Scores of passages against a query over gRPC."""
