"""``python -m tinker_ray.cli``."""

from tinker_ray.cli.app import main

main()
