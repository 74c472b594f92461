"""The SDK itself, async and without globals: sessions, promises, training order, sampling."""
