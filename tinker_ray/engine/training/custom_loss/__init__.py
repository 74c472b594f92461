"""Losses that clients traced: checked as data, rebuilt from allowed operations, run row by row."""

from tinker_ray.engine.training.custom_loss.program import CustomLoss, validate_graph

__all__ = ["CustomLoss", "validate_graph"]
