"""The command ``tinker-ray``."""
