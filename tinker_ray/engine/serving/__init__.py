"""The HTTP side: requests checked, promises kept, training operations in their order."""
