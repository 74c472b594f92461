"""tinker-ray."""
