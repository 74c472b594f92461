"""The base model, the adapters on it, and the caches that it runs with."""
