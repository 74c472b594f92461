"""The SDK itself, async and without globals: session, promises, training order, sampling, registry."""
