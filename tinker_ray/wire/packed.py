"""Datums that are encoded already: made in one process, sent from another that never looks inside.

A message in protobuf may be cut anywhere between its fields, so that the datums of a batch can be
encoded before it is known under which number they will be sent. That costs a batch one copy on its
way through an actor, instead of every list and array in it.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from tinker_ray.wire import proto_codec
from tinker_ray.wire.chunking import datum_bytes
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray.types import Datum

_OUT_OF_BAND = 5
"""The first protocol of pickle that leaves large buffers where they are."""


class PackedData(Sequence["Datum"]):
    """A batch's datums in protobuf. Reading one decodes all: for those who have no other way.

    Attributes:
        content: The encoded datums.
        num_bytes: Their estimated size, as the limits count it.
    """

    __slots__ = ("_count", "content", "num_bytes")

    def __init__(self, content: bytes | memoryview, num_bytes: int, count: int) -> None:
        """Take what :meth:`of` made, perhaps in another process."""
        self.content = content
        self.num_bytes = num_bytes
        self._count = count

    @classmethod
    def of(cls, data: Sequence[Datum]) -> PackedData:
        """Encode datums.

        Raises:
            WireFormatError: A value cannot travel in protobuf.
        """
        bare = ForwardBackwardRequest(model_id="", data=data, loss_fn="")
        return cls(proto_codec.encode_forward_backward(bare), data_bytes(data), len(data))

    def encode_in(self, request: ForwardBackwardRequest) -> bytes:
        """Encode a request whose data this is."""
        head = proto_codec.encode_forward_backward(replace(request, data=()))
        return b"".join((head, self.content))

    def unpack(self) -> list[Datum]:
        """Decode all."""
        return list(proto_codec.decode_forward_backward(bytes(self.content)).data)

    def __len__(self) -> int:
        """Count the datums, without decoding them."""
        return self._count

    def __iter__(self) -> Iterator[Datum]:
        """Decode all."""
        return iter(self.unpack())

    @overload
    def __getitem__(self, index: int) -> Datum: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Datum]: ...
    def __getitem__(self, index: int | slice) -> Datum | Sequence[Datum]:
        """Decode all, for some."""
        return self.unpack()[index]

    def __repr__(self) -> str:
        """Describe the datums without their values."""
        return f"PackedData({self._count} datums, {self.num_bytes} bytes)"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:  # noqa: ANN401 - object's signature
        """Let the bytes stay where they are, where pickle can do that."""
        far = protocol >= _OUT_OF_BAND
        content = pickle.PickleBuffer(self.content) if far else bytes(self.content)
        return PackedData, (content, self.num_bytes, self._count)


def data_bytes(data: Sequence[Datum]) -> int:
    """Estimate the uncompressed size of a batch in protobuf."""
    return data.num_bytes if isinstance(data, PackedData) else sum(map(datum_bytes, data))
