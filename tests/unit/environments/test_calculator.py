from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.environments.calculator import CalculationError, calculate


@pytest.mark.parametrize(
    "expression,value",
    [
        ("12+34", 46),
        (" 2 * (3 - 5) ", -4),
        ("7/2", 3.5),
        ("7//2 + 7%2", 4),
        ("2**10", 1024),
        ("-3 + +4", 1),
    ],
)
def test_an_expression_has_the_value_that_python_gives_it(expression: str, value: float) -> None:
    assert value == calculate(expression)


@pytest.mark.parametrize(
    "expression,words",
    [
        ("", "not an expression"),
        ("12+", "not an expression"),
        ("__import__('os')", "only numbers"),
        ("[1][0]", "only numbers"),
        ("x", "only numbers"),
        ("True + 1", "only numbers have values"),
        ("'a'*9", "only numbers"),
        ("1/0", "division by zero"),
        ("2**65", "exponent"),
        ("9**60", "digits"),
        ("2**3**4", "exponent"),
        ("2**64**64", "digits"),
        ("1e308*10", "not a finite number"),
        ("(-1)**0.5", "not a real number"),
        ("1+" * 100 + "1", "longer than"),
    ],
)
def test_what_is_no_expression_is_told_why(expression: str, words: str) -> None:
    with pytest.raises(CalculationError, match=words):
        calculate(expression)


@given(st.text("0123456789+-*/%(). e_j", max_size=60))
def test_any_keys_give_a_number_or_words(keys: str) -> None:
    try:
        value = calculate(keys)
    except CalculationError:
        return
    assert math.isfinite(value)
