"""What the array-based values share with pydantic models, so that they can be used as such.

They are plain classes, because validating every token of a batch would cost more than sending it.
They dump themselves to plain Python values, and can be fields of anyone's pydantic models.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

Mode = Literal["python", "json"]


class Value:
    """A dataclass with the methods of a pydantic model that make sense for it."""

    __slots__ = ()

    def model_dump(self, *, mode: Mode = "python", exclude_none: bool = False) -> dict[str, Any]:
        """Return the fields as dictionaries, lists and numbers; bytes become base64 in JSON."""
        fields = {name: _plain(value, mode, exclude_none) for name, value in self._dumped().items()}
        return {
            name: value for name, value in fields.items() if not (exclude_none and value is None)
        }

    def model_dump_json(self, *, exclude_none: bool = False, indent: int | None = None) -> str:
        """Return the fields as JSON."""
        return json.dumps(self.model_dump(mode="json", exclude_none=exclude_none), indent=indent)

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """Return a copy with some fields replaced; they are checked like new ones."""
        return type(self)(**(self._dumped() | dict(update or {})))

    @classmethod
    def model_validate(cls, value: object) -> Self:
        """Make one of a mapping of its fields; an instance passes as it is.

        Raises:
            ValueError: The value is neither, or its fields do not fit.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            message = f"expected a {cls.__name__} or a mapping, not a {type(value).__name__}"
            raise ValueError(message)  # noqa: TRY004 - what pydantic turns into a ValidationError
        try:
            return cls(**cls._nested(dict(value)))
        except TypeError as error:
            message = f"not the fields of a {cls.__name__}: {error}"
            raise ValueError(message) from error

    def _dumped(self) -> dict[str, Any]:
        """Give the fields that are dumped; a subclass may show other ones than it stores."""
        stored = dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return {item.name: getattr(self, item.name) for item in stored}

    @classmethod
    def _nested(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Turn mappings inside the fields into values; a subclass knows which."""
        return fields

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's protocol
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.model_validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                _serialize, info_arg=True
            ),
        )


def _serialize(value: Value, info: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's own type
    return value.model_dump(mode=info.mode, exclude_none=info.exclude_none)


def _plain(value: Any, mode: Mode, exclude_none: bool) -> Any:  # noqa: ANN401, FBT001 - any field
    if isinstance(value, Value):
        return value.model_dump(mode=mode, exclude_none=exclude_none)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if mode == "json" else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item, mode, exclude_none) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, mode, exclude_none) for item in value]
    return value
