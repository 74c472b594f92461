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
_CACHE = Path(__file__).parents[2] / ".cache" / "upstream"


def upstream_python(version: str) -> Path:
    """Return the interpreter of an environment with ``tinker==version``, making it if needed."""
    lender = sysconfig.get_path("purelib")
    key = hashlib.sha256(f"{version} {sys.version} {lender}".encode()).hexdigest()[:12]
    directory = _CACHE / f"{version}-{key}"
    python = directory / "bin" / "python"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:  # two runs of the tests may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            venv.create(directory, symlinks=True)
            site = directory / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
            (site / "site-packages" / "borrowed.pth").write_text(f"{lender}\n")
            _install(python, f"tinker=={version}")
            (directory / "complete").touch()
    return python


def _install(python: Path, requirement: str) -> None:
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    outcome = subprocess.run([*pip, requirement], check=False, capture_output=True, text=True)
    if outcome.returncode:
        message = f"cannot install {requirement}:\n{outcome.stderr}"
        raise RuntimeError(message)
