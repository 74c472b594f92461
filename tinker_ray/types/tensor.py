"""Tensors as they travel: a dtype, a shape and one numpy array, dense or CSR.

Knows nothing of torch beyond duck-typed conversions, and nothing of the wire.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tinker_ray.types import csr
from tinker_ray.types.value import Value

if TYPE_CHECKING:
    import numpy.typing as npt

    from tinker_ray.types.csr import Indices

TensorDtype = Literal["int64", "float32"]

_NUMPY_DTYPES: dict[str, type[np.generic]] = {"int64": np.int64, "float32": np.float32}
_KINDS: dict[str, TensorDtype] = {"f": "float32", "i": "int64"}


@dataclass(frozen=True, eq=False, init=False, repr=False)
class TensorData(Value):
    """An array of int64 or float32 values.

    A sparse tensor (CSR) lists the values of a 2-D ``shape``: ``sparse_crow_indices`` has one entry
    more than there are rows, ``sparse_col_indices`` one entry per value.
    """

    dtype: TensorDtype
    shape: list[int] | None
    _values: npt.NDArray[Any] = field(repr=False)
    _crow: Indices | None = field(repr=False)
    _col: Indices | None = field(repr=False)

    def __init__(
        self,
        data: Sequence[int] | Sequence[float] | npt.NDArray[Any] | None = None,
        dtype: TensorDtype | None = None,
        shape: Sequence[int] | None = None,
        sparse_crow_indices: Sequence[int] | npt.NDArray[Any] | None = None,
        sparse_col_indices: Sequence[int] | npt.NDArray[Any] | None = None,
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
        values = _as_values([] if data is None else data, dtype)
        crow = col = None
        if sparse_crow_indices is not None and sparse_col_indices is not None:
            crow = csr.as_indices(sparse_crow_indices, "sparse_crow_indices")
            col = csr.as_indices(sparse_col_indices, "sparse_col_indices")
            values = values.reshape(-1)
            csr.check(values.size, shape, crow, col)
        elif sparse_crow_indices is not None or sparse_col_indices is not None:
            message = "sparse_crow_indices and sparse_col_indices come together"
            raise ValueError(message)
        elif shape is not None:
            values = _shaped(values, shape)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", None if shape is None else [int(n) for n in shape])
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_crow", crow)
        object.__setattr__(self, "_col", col)

    @classmethod
    def from_numpy(cls, array: npt.NDArray[Any]) -> TensorData:
        """Wrap an array: float kinds become float32, signed integers int64.

        Raises:
            ValueError: The array holds anything else.
        """
        if array.dtype.kind not in _KINDS:
            message = (
                f"unsupported numpy dtype {array.dtype}: use a float or a signed integer dtype"
            )
            raise ValueError(message)
        return cls(array, _KINDS[array.dtype.kind], list(array.shape))

    @classmethod
    def from_torch(cls, tensor: Any) -> TensorData:  # noqa: ANN401 - torch stays optional
        """Wrap a torch tensor: floating dtypes become float32, all others int64."""
        return cls.from_numpy(_from_torch(tensor))

    @classmethod
    def from_torch_sparse(cls, tensor: Any, pad_value: int = 0) -> TensorData:  # noqa: ANN401
        """Wrap a torch tensor as CSR if it is 2-D and that saves space, else densely.

        Args:
            tensor: A dense torch tensor.
            pad_value: What is left out; give it again to ``to_numpy`` and ``to_torch``.

        Raises:
            TypeError: ``pad_value`` is no integer.
        """
        pad_value = _pad_value(pad_value)
        array = _from_torch(tensor)
        if array.ndim != csr.MATRIX_AXES:
            return cls.from_numpy(array)
        values, crow, col = csr.compress(array, pad_value)
        if not csr.saves_space(values.size, array.shape):
            return cls.from_numpy(array)
        return cls(values, _KINDS[array.dtype.kind], array.shape, crow, col)

    @property
    def values(self) -> npt.NDArray[Any]:
        """The stored values: all of them when dense, the listed ones when sparse."""
        return self._values

    @property
    def is_sparse(self) -> bool:
        """Whether the tensor is stored as CSR."""
        return self._crow is not None

    @property
    def csr_indices(self) -> tuple[Indices, Indices] | None:
        """Row pointers and columns as int64 arrays, None when dense."""
        return None if self._crow is None or self._col is None else (self._crow, self._col)

    @property
    def sparse_crow_indices(self) -> list[int] | None:
        """Row pointers as a list, None when dense."""
        return None if self._crow is None else self._crow.tolist()

    @property
    def sparse_col_indices(self) -> list[int] | None:
        """Columns of the listed values as a list, None when dense."""
        return None if self._col is None else self._col.tolist()

    @property
    def data(self) -> list[Any]:
        """The stored values as a flat list."""
        flat: list[Any] = self._values.reshape(-1).tolist()
        return flat

    def to_numpy(self, pad_value: int = 0) -> npt.NDArray[Any]:
        """Return the dense array; unlisted entries of a sparse tensor are ``pad_value``.

        Raises:
            TypeError: The tensor is sparse and ``pad_value`` is no integer.
        """
        if self._crow is None:
            return self._values
        dense = np.full(tuple(self.shape or ()), _pad_value(pad_value), dtype=self._values.dtype)
        dense[csr.rows_of(self._crow), self._col] = self._values
        return dense

    def to_torch(self, pad_value: int = 0) -> Any:  # noqa: ANN401 - torch stays optional
        """Return a dense torch tensor of the same dtype, with memory of its own.

        Raises:
            ImportError: torch is not installed.
        """
        return importlib.import_module("torch").from_numpy(np.array(self.to_numpy(pad_value)))

    def tolist(self, pad_value: int = 0) -> list[Any]:
        """Return the dense values as nested lists."""
        nested: list[Any] = self.to_numpy(pad_value).tolist()
        return nested

    def _dumped(self) -> dict[str, Any]:
        # The data is flat, so that only one axis goes without saying.
        shape = self.shape if self._values.ndim == 1 else list(self._values.shape)
        dense = {"data": self.data, "dtype": self.dtype, "shape": shape}
        indices = {
            "sparse_crow_indices": self.sparse_crow_indices,
            "sparse_col_indices": self.sparse_col_indices,
        }
        return dense | indices

    def __repr__(self) -> str:
        """Describe the tensor without its values."""
        sparse = f", num_values={self._values.size}, layout='csr'" if self.is_sparse else ""
        return f"TensorData(dtype={self.dtype!r}, shape={self.shape}{sparse})"

    def __eq__(self, other: object) -> bool:
        """Compare dtype, shape, layout and values bit for bit (NaN equals NaN)."""
        if not isinstance(other, TensorData):
            return NotImplemented
        same_values = (
            self.dtype == other.dtype
            and self._values.shape == other._values.shape
            and self._values.tobytes() == other._values.tobytes()
        )
        mine, theirs = self.csr_indices, other.csr_indices
        if not same_values or mine is None or theirs is None:
            return same_values and mine is theirs
        same_indices = all(map(np.array_equal, mine, theirs))
        return self.shape == other.shape and same_indices

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


def _shaped(values: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    if values.shape == tuple(shape):
        return values
    if any(size < 0 for size in shape):
        message = f"shape {list(shape)} has a negative size"
        raise ValueError(message)
    return values.reshape(tuple(shape))


def _from_torch(tensor: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - torch stays optional
    plain = tensor.detach().cpu()
    plain = plain.float() if plain.is_floating_point() else plain.long()
    array: npt.NDArray[Any] = plain.contiguous().numpy()
    return array


def _pad_value(pad_value: Any) -> int:  # noqa: ANN401 - what a caller may pass
    if isinstance(pad_value, bool) or not isinstance(pad_value, int | np.integer):
        message = f"pad_value is an integer, not {pad_value!r}"
        raise TypeError(message)
    return int(pad_value)
