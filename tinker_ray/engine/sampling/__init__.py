"""Continuous batching: requests of many adapters drawn from one base model."""
