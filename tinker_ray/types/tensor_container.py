"""The shape that the header of a serialized tensor announces, without reading its content.

Layout: an optional byte 254 (all elements are equal), a byte for the dtype (0 to 7), the number of
dimensions and each dimension as varints (seven bits a byte, lowest first), then the content.
"""

from __future__ import annotations

_CONSTANT = 254
_MAX_DTYPE = 7
_MAX_VARINT_BITS = 64
_MORE = 0x80


def container_shape(content: bytes) -> tuple[int, ...]:
    """Read the shape.

    Raises:
        ValueError: The bytes are no such header.
    """
    position = 1 if content[:1] == bytes([_CONSTANT]) else 0
    if position >= len(content):
        message = "a tensor container needs a header: it is empty or cut off"
        raise ValueError(message)
    if content[position] > _MAX_DTYPE:
        message = f"unknown dtype {content[position]} in the header of a tensor container"
        raise ValueError(message)
    num_dimensions, position = _varint(content, position + 1)
    shape: list[int] = []
    for _ in range(num_dimensions):
        size, position = _varint(content, position)
        shape.append(size)
    return tuple(shape)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number; return it and the position after it."""
    number = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if position >= len(content):
            message = "the header of a tensor container is cut off"
            raise ValueError(message)
        byte = content[position]
        position += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return number, position
    message = "a number in the header of a tensor container is too long"
    raise ValueError(message)
