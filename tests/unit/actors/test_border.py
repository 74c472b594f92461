from __future__ import annotations

import asyncio

import pytest

from actors.border import portable
from tinker_ray.errors import NotFoundError, TinkerError


@pytest.mark.parametrize(
    "error", [NotFoundError("gone", status_code=404), ValueError("no"), KeyError("k"), OSError(5)]
)
def test_errors_of_known_classes_cross_as_they_are(error: Exception) -> None:
    assert error is portable(error)


def test_an_error_that_does_not_pickle_crosses_as_its_name_and_words() -> None:
    class LocalError(ValueError):
        pass

    crossed = portable(LocalError("boom"))
    assert (TinkerError, "LocalError: boom") == (type(crossed), str(crossed))


def test_an_error_of_a_users_class_crosses_as_its_name_and_words() -> None:
    crossed = portable(ArithmeticError("nan"))
    assert (TinkerError, "ArithmeticError: nan") == (type(crossed), str(crossed))


def test_a_cancellation_crosses_as_a_word() -> None:
    assert "cancelled" == str(portable(asyncio.CancelledError()))
