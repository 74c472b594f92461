"""Tensors as they travel: a dtype, a shape and one numpy array, dense or CSR.

Knows nothing of torch beyond duck-typed conversions, and nothing of the wire.
"""

from __future__ import annotations

import importlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

TensorDtype = Literal["int64", "float32"]

_NUMPY_DTYPES: dict[str, type[np.generic]] = {"int64": np.int64, "float32": np.float32}


@dataclass(frozen=True, eq=False, init=False)
class TensorData:
    """An array of int64 or float32 values.

    A sparse tensor (CSR) lists the values of a 2-D ``shape``: ``sparse_crow_indices`` has one entry
    more than there are rows, ``sparse_col_indices`` one entry per value.
    """

    dtype: TensorDtype
    shape: list[int] | None
    sparse_crow_indices: list[int] | None
    sparse_col_indices: list[int] | None
    _values: npt.NDArray[Any] = field(repr=False)

    def __init__(
        self,
        data: Sequence[int] | Sequence[float] | npt.NDArray[Any] | None = None,
        dtype: TensorDtype | None = None,
        shape: Sequence[int] | None = None,
        sparse_crow_indices: list[int] | None = None,
        sparse_col_indices: list[int] | None = None,
    ) -> None:
        """Take values in row-major order.

        Raises:
            TypeError: ``dtype`` is missing.
            ValueError: ``dtype`` is unknown, the values are no numbers or would change their value
                in it, do not fill ``shape``, or the CSR indices do not describe a matrix.
        """
        if dtype is None:
            message = "TensorData requires `dtype`: 'int64' or 'float32'"
            raise TypeError(message)
        if dtype not in _NUMPY_DTYPES:
            message = f"unsupported TensorData dtype {dtype!r}: use 'int64' or 'float32'"
            raise ValueError(message)
        if (sparse_crow_indices is None) != (sparse_col_indices is None):
            message = "sparse_crow_indices and sparse_col_indices come together"
            raise ValueError(message)
        values = _as_values([] if data is None else data, dtype)
        if sparse_crow_indices is not None and sparse_col_indices is not None:
            _check_csr(values.size, shape, sparse_crow_indices, sparse_col_indices)
        elif shape is not None and values.shape != tuple(shape):
            if any(size < 0 for size in shape):
                message = f"shape {list(shape)} has a negative size"
                raise ValueError(message)
            values = values.reshape(tuple(shape))
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", None if shape is None else list(shape))
        object.__setattr__(self, "sparse_crow_indices", sparse_crow_indices)
        object.__setattr__(self, "sparse_col_indices", sparse_col_indices)
        object.__setattr__(self, "_values", values)

    @classmethod
    def from_numpy(cls, array: npt.NDArray[Any]) -> TensorData:
        """Wrap an array: float kinds become float32, signed integers int64.

        Raises:
            ValueError: The array holds anything else.
        """
        kinds: dict[str, TensorDtype] = {"f": "float32", "i": "int64"}
        if array.dtype.kind not in kinds:
            message = (
                f"unsupported numpy dtype {array.dtype}: use a float or a signed integer dtype"
            )
            raise ValueError(message)
        return cls(array, kinds[array.dtype.kind], list(array.shape))

    @classmethod
    def from_torch(cls, tensor: Any) -> TensorData:  # noqa: ANN401 - torch stays optional
        """Wrap a torch tensor: floating dtypes become float32, all others int64."""
        plain = tensor.detach().cpu()
        plain = plain.float() if plain.is_floating_point() else plain.long()
        return cls.from_numpy(plain.contiguous().numpy())

    @property
    def values(self) -> npt.NDArray[Any]:
        """The stored values: all of them when dense, the listed ones when sparse."""
        return self._values

    @property
    def is_sparse(self) -> bool:
        """Whether the tensor is stored as CSR."""
        return self.sparse_crow_indices is not None

    @property
    def data(self) -> list[Any]:
        """The stored values as a flat list."""
        flat: list[Any] = self._values.reshape(-1).tolist()
        return flat

    def to_numpy(self, pad_value: int = 0) -> npt.NDArray[Any]:
        """Return the dense array; unlisted entries of a sparse tensor are ``pad_value``."""
        if self.sparse_crow_indices is None or self.sparse_col_indices is None:
            return self._values
        dense = np.full(tuple(self.shape or ()), pad_value, dtype=self._values.dtype)
        rows = np.repeat(
            np.arange(len(self.sparse_crow_indices) - 1), np.diff(self.sparse_crow_indices)
        )
        dense[rows, self.sparse_col_indices] = self._values
        return dense

    def to_torch(self, pad_value: int = 0) -> Any:  # noqa: ANN401 - torch stays optional
        """Return a dense torch tensor of the same dtype.

        Raises:
            ImportError: torch is not installed.
        """
        return importlib.import_module("torch").from_numpy(np.array(self.to_numpy(pad_value)))

    def tolist(self, pad_value: int = 0) -> list[Any]:
        """Return the dense values as nested lists."""
        nested: list[Any] = self.to_numpy(pad_value).tolist()
        return nested

    def __eq__(self, other: object) -> bool:
        """Compare dtype, shape, layout and values bit for bit (NaN equals NaN)."""
        if not isinstance(other, TensorData):
            return NotImplemented
        return (
            self.dtype == other.dtype
            and self._values.shape == other._values.shape
            and self.sparse_crow_indices == other.sparse_crow_indices
            and self.sparse_col_indices == other.sparse_col_indices
            and self._values.tobytes() == other._values.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]


def _as_values(data: Sequence[int] | Sequence[float] | npt.NDArray[Any], dtype: TensorDtype) -> Any:  # noqa: ANN401 - an array of either dtype
    given = np.asarray(data)
    if given.dtype.kind not in "iufb":
        message = f"expected numbers that fit {dtype}"
        raise ValueError(message)
    values = given.astype(_NUMPY_DTYPES[dtype], copy=False)
    if dtype == "int64" and given.dtype.kind in "uf" and not np.array_equal(given, values):
        message = "expected integers for int64"
        raise ValueError(message)
    return values


def _check_csr(
    num_values: int, shape: Sequence[int] | None, crow: Sequence[int], col: Sequence[int]
) -> None:
    if shape is None or len(shape) != 2 or any(size < 0 for size in shape):  # noqa: PLR2004
        message = f"a sparse tensor needs a 2-D shape, not {shape}"
        raise ValueError(message)
    if len(crow) != shape[0] + 1 or crow[0] != 0 or crow[-1] != num_values:
        message = f"sparse_crow_indices do not lead {shape[0]} rows from 0 to {num_values}"
        raise ValueError(message)
    if any(start > stop for start, stop in itertools.pairwise(crow)):
        message = "sparse_crow_indices decrease"
        raise ValueError(message)
    if len(col) != num_values or not all(0 <= column < shape[1] for column in col):
        message = f"sparse_col_indices are not {num_values} columns below {shape[1]}"
        raise ValueError(message)
