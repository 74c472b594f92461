"""JSON text to checked Python values: the parts that the JSON layouts are read and written with.

Knows nothing of any message. What does not fit raises ``WireFormatError`` with the field's path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import UnionType
from typing import Any

import numpy as np
import orjson

from tinker_ray.errors import WireFormatError

_INT32 = np.iinfo(np.int32)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def dumps(value: object, where: str = "") -> bytes:
    """Encode as compact JSON.

    Raises:
        WireFormatError: There is something that JSON does not have, such as NaN or an infinity.
    """
    try:
        content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        if b"null" in content:  # which is also what it makes of a NaN
            content = json.dumps(
                value, allow_nan=False, separators=(",", ":"), default=np.ndarray.tolist
            ).encode()
    except (ValueError, TypeError) as error:
        raise WireFormatError(f"JSON cannot carry this: {error}", field=where) from error
    return content


def loads(content: bytes, where: str = "body") -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        WireFormatError: The bytes are not a JSON object.
    """
    try:
        value = orjson.loads(content)
    except ValueError:
        value = _strictly_loads(content, where)
    body: dict[str, Any] = typed(value, dict, where)
    return body


def _strictly_loads(content: bytes, where: str) -> Any:  # noqa: ANN401
    """Decode what orjson will not: numbers without bounds, which are refused by their field."""
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireFormatError(f"not JSON: {error}", field=where) from error


def _refuse_constant(name: str) -> float:
    message = f"{name} is no JSON"
    raise ValueError(message)


def typed(value: Any, kind: type | UnionType, where: str) -> Any:  # noqa: ANN401 - JSON has no types
    """Check the kind of a value; a bool is no number.

    Raises:
        WireFormatError: It is of another kind.
    """
    wrong = not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))
    if wrong:
        got = "nothing" if value is None else f"a {type(value).__name__}"
        wanted = kind.__name__ if isinstance(kind, type) else str(kind)
        raise WireFormatError(f"expected {wanted}, got {got}", field=where)
    return value


def join_path(where: str, key: str) -> str:
    """Name a field of what is at ``where``."""
    return f"{where}.{key}" if where else key


def required(fields: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:  # noqa: ANN401
    """Return a field.

    Raises:
        WireFormatError: It is missing, null or of another kind.
    """
    return typed(fields.get(key), kind, join_path(where, key))


def optional(fields: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:  # noqa: ANN401
    """Return a field, or None if it is missing or null.

    Raises:
        WireFormatError: It is of another kind.
    """
    value = fields.get(key)
    return None if value is None else typed(value, kind, join_path(where, key))


def ints(
    value: object, where: str, dtype: type[np.signedinteger] = np.int32
) -> np.ndarray[Any, Any]:
    """Read a list of integers.

    Raises:
        WireFormatError: It is no such list, or one does not fit ``dtype``.
    """
    numbers = typed(value, list, where)
    if not set(map(type, numbers)) <= {int}:
        raise WireFormatError("expected a list of integers", field=where)
    limits = _INT32 if dtype is np.int32 else np.iinfo(np.int64)
    if numbers and not (limits.min <= min(numbers) and max(numbers) <= limits.max):
        raise WireFormatError(f"integers outside {limits.dtype}", field=where)
    return np.array(numbers, dtype=dtype)


def indices(fields: Mapping[str, Any], key: str, where: str) -> list[int] | None:
    """Read an optional field of int64 indices.

    Raises:
        WireFormatError: It holds anything else.
    """
    value = fields.get(key)
    return None if value is None else ints(value, join_path(where, key), np.int64).tolist()


def floats(value: object, where: str) -> np.ndarray[Any, Any]:
    """Read a list of numbers as float32.

    Raises:
        WireFormatError: It is no such list, or a number does not fit.
    """
    numbers = typed(value, list, where)
    if not set(map(type, numbers)) <= {int, float}:
        raise WireFormatError("expected a list of numbers", field=where)
    try:
        wide = np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        raise WireFormatError("a number does not fit float32", field=where) from error
    if bool(np.any(np.abs(wide) > _FLOAT32_MAX)):
        raise WireFormatError("a number does not fit float32", field=where)
    return wide.astype(np.float32)
