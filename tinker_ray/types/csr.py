"""Compressed sparse rows: the positions of listed values in a matrix.

``crow`` leads each row to its values (one entry more than there are rows), ``col`` gives the column
of each. What is not listed is padding. Plain numpy; knows nothing of tensors or of the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Indices: TypeAlias = npt.NDArray[np.int64]

MATRIX_AXES = 2


def as_indices(given: Sequence[int] | npt.NDArray[Any], name: str) -> Indices:
    """Turn row pointers or columns into an int64 array.

    Raises:
        ValueError: They are no list of integers.
    """
    array = np.asarray(given)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        message = f"{name} is a list of integers"
        raise ValueError(message)
    return array.astype(np.int64, copy=False)


def check(num_values: int, shape: Sequence[int] | None, crow: Indices, col: Indices) -> None:
    """Check that the indices lead ``num_values`` values into a matrix.

    Raises:
        ValueError: They do not, or the shape is no matrix.
    """
    if shape is None or len(shape) != MATRIX_AXES or any(size < 0 for size in shape):
        message = f"a sparse tensor needs a 2-D shape, not {shape}"
        raise ValueError(message)
    if len(crow) != shape[0] + 1 or crow[0] != 0 or crow[-1] != num_values:
        message = f"sparse_crow_indices do not lead {shape[0]} rows from 0 to {num_values}"
        raise ValueError(message)
    if bool(np.any(crow[1:] < crow[:-1])):
        message = "sparse_crow_indices decrease"
        raise ValueError(message)
    if len(col) != num_values or bool(np.any((col < 0) | (col >= shape[1]))):
        message = f"sparse_col_indices are not {num_values} columns below {shape[1]}"
        raise ValueError(message)


def rows_of(crow: Indices) -> Indices:
    """Give the row of each listed value."""
    return np.repeat(np.arange(len(crow) - 1), np.diff(crow))


def compress(matrix: npt.NDArray[Any], pad_value: int) -> tuple[npt.NDArray[Any], Indices, Indices]:
    """List what is not padding: values, row pointers, columns."""
    listed = matrix != pad_value
    crow = np.zeros(len(matrix) + 1, dtype=np.int64)
    np.cumsum(np.count_nonzero(listed, axis=1), out=crow[1:])
    return matrix[listed], crow, np.nonzero(listed)[1]


def saves_space(num_values: int, shape: tuple[int, ...]) -> bool:
    """Tell whether the listed values with their indices are fewer numbers than the matrix."""
    num_rows, num_columns = shape
    return num_rows + 1 + 2 * num_values < num_rows * num_columns
