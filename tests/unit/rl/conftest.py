from __future__ import annotations

import sys

import pytest


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs draw no pictures, which takes longer than all else in a run of a few steps."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
