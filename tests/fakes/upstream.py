"""The upstream SDK's wheels, each in an environment of its own that the tests make.

The environments borrow what the project's own environment has (torch, numpy, httpx, …) and hold
the wheel and what else it needs. They are kept under ``.cache/`` in the repository, keyed by what
they were made from; making one takes some seconds and the package registry.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

VERSIONS = ("0.6.3", "0.38.0")
"""One wheel of each generation of the API."""


COOKBOOK = ("tinker-cookbook==0.6.1", "chz==0.4.0")
"""The cookbook and what it needs to be imported; the SDK that it wants is ours, by install()."""
_CACHE = Path(__file__).parents[2] / ".cache" / "upstream"


def upstream_python(version: str) -> Path:
    """Return the interpreter of an environment with ``tinker==version``, making it if needed."""
    return _environment(version, f"tinker=={version}")


def cookbook_python() -> Path:
    """Return the interpreter of an environment with the Tinker cookbook, but without its SDK."""
    return _environment("cookbook", "--no-deps", *COOKBOOK)


def _environment(name: str, *requirements: str) -> Path:
    lender = sysconfig.get_path("purelib")
    made_from = " ".join((*requirements, sys.version, lender))
    directory = _CACHE / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    python = directory / "bin" / "python"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:  # two runs of the tests may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            venv.create(directory, symlinks=True)
            site = directory / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
            (site / "site-packages" / "borrowed.pth").write_text(f"{lender}\n")
            _install(python, *requirements)
            (directory / "complete").touch()
    return python


def _install(python: Path, *requirements: str) -> None:
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    outcome = subprocess.run([*pip, *requirements], check=False, capture_output=True, text=True)
    if outcome.returncode:
        message = f"cannot install {' '.join(requirements)}:\n{outcome.stderr}"
        raise RuntimeError(message)
