"""Use cases: each takes the context and opens its own unit of work."""
