"""A calculator: arithmetic in text, without anything else that Python can do.

Knows nothing of environments. Invariant: whatever text it is given, it answers within a bounded
time, with a number or with words that say what is wrong.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

MAX_LENGTH = 200
MAX_DIGITS = 40
MAX_EXPONENT = 64

Number = int | float

_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: operator.pow,
    }
)
_UNARY: Mapping[type[ast.unaryop], Callable[[Number], Number]] = MappingProxyType(
    {ast.UAdd: operator.pos, ast.USub: operator.neg}
)


class CalculationError(ValueError):
    """What was typed has no value here; the words say why."""


def calculate(expression: str) -> Number:
    """Return the value of an expression of numbers, ``+ - * / // % **`` and parentheses.

    Raises:
        CalculationError: It is no such expression, or the numbers grow too large.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculationError(f"longer than {MAX_LENGTH} characters")
    try:
        parsed = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CalculationError("not an expression") from error
    try:
        return _value(parsed.body)
    except ArithmeticError as error:
        raise CalculationError(str(error) or type(error).__name__) from error


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise CalculationError("only numbers have values here")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op, operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(b) > MAX_EXPONENT:
                raise CalculationError(f"an exponent above {MAX_EXPONENT}")
            return _bounded(_BINARY[type(op)](a, b))
        case _:
            raise CalculationError("only numbers, + - * / // % ** and parentheses")


def _bounded(number: object) -> Number:
    if not isinstance(number, int | float):  # (-1) ** 0.5
        raise CalculationError("not a real number")
    if isinstance(number, float) and not math.isfinite(number):
        raise CalculationError("not a finite number")
    if isinstance(number, int) and abs(number) >= 10**MAX_DIGITS:
        raise CalculationError(f"more than {MAX_DIGITS} digits")
    return number
