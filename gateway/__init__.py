"""The REST gateway: routes, pipeline, clients of the workers, cache and search."""
