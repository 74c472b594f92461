"""Losses, gradients and optimizer steps of many adapters on one base model."""
