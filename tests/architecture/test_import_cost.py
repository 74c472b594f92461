import subprocess
import sys

import pytest

HEAVY = ("ray", "torch", "transformers", "matplotlib")


@pytest.mark.parametrize(
    "package", ["tinker_ray", "tinker_ray.cli.app", "tinker_ray.engine.launcher"]
)
def test_importing_a_package_loads_neither_ray_nor_torch(package: str) -> None:
    script = f"import sys, {package}; print([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("[]", "") == (run.stdout.strip(), run.stderr)
