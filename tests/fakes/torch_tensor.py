"""What the conversions use of a torch tensor, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class FakeTorchTensor:
    """The part of a torch tensor that the conversion uses."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    @property
    def ndim(self) -> int:
        return self.array.ndim

    def is_floating_point(self) -> bool:
        return self.array.dtype.kind == "f"

    def detach(self) -> FakeTorchTensor:
        return self

    cpu = contiguous = detach

    def float(self) -> FakeTorchTensor:
        return FakeTorchTensor(self.array.astype(np.float32))

    def long(self) -> FakeTorchTensor:
        return FakeTorchTensor(self.array.astype(np.int64))

    def numpy(self) -> npt.NDArray[Any]:
        return self.array
