from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.fakes.torch_tensor import FakeTorchTensor
from tinker_ray.types import TensorData

DENSE = np.array([[0, 5, 0], [7, 0, 9]], dtype=np.int64)
CSR = TensorData([5, 7, 9], "int64", [2, 3], [0, 1, 3], [1, 0, 2])


def test_values_fill_the_shape_in_row_major_order() -> None:
    tensor = TensorData([1, 2, 3, 4, 5, 6], "int64", [2, 3])
    assert [[1, 2, 3], [4, 5, 6]] == tensor.tolist()
    assert [1, 2, 3, 4, 5, 6] == tensor.data


def test_without_a_shape_values_are_as_given() -> None:
    tensor = TensorData([0.5, 1.5], "float32")
    assert tensor.shape is None
    assert (2,) == tensor.to_numpy().shape


def test_no_data_is_an_empty_tensor() -> None:
    assert [] == TensorData(dtype="float32").data


def test_a_sparse_tensor_gives_its_dense_form() -> None:
    assert CSR.is_sparse
    np.testing.assert_array_equal(DENSE, CSR.to_numpy())
    assert [5, 7, 9] == CSR.data
    assert [[0, 5, 0], [7, 0, 9]] == CSR.tolist()


def test_unlisted_entries_take_the_pad_value() -> None:
    assert [[-1, 5, -1], [7, -1, 9]] == CSR.tolist(pad_value=-1)


def test_an_empty_sparse_matrix_is_all_padding() -> None:
    tensor = TensorData([], "float32", [1, 2], [0, 0], [])
    assert [[0.0, 0.0]] == tensor.tolist()


@pytest.mark.parametrize(
    "dtype,expected",
    [
        (np.float16, "float32"),
        (np.float32, "float32"),
        (np.float64, "float32"),
        (np.int8, "int64"),
        (np.int32, "int64"),
        (np.int64, "int64"),
    ],
)
def test_numpy_kinds_decide_the_dtype(dtype: type[np.generic], expected: str) -> None:
    tensor = TensorData.from_numpy(np.array([[1, 2]], dtype=dtype))
    assert (expected, [1, 2]) == (tensor.dtype, tensor.shape)
    assert expected == str(tensor.to_numpy().dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.complex64, np.str_])
def test_other_numpy_kinds_are_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(ValueError, match="unsupported numpy dtype"):
        TensorData.from_numpy(np.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    "given_dtype,expected",
    [(np.float64, "float32"), (np.int32, "int64"), (np.bool_, "int64"), (np.uint8, "int64")],
)
def test_torch_floats_become_float32_and_all_else_int64(
    given_dtype: type[np.generic], expected: str
) -> None:
    tensor = TensorData.from_torch(FakeTorchTensor(np.ones((2, 2), dtype=given_dtype)))
    assert (expected, [2, 2], [1, 1, 1, 1]) == (tensor.dtype, tensor.shape, tensor.data)


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        (([1], "float64"), "unsupported TensorData dtype"),
        (([1, 2, 3], "int64", [2, 2]), "reshape"),
        (([1, 2], "int64", [-1]), "negative"),
        (([1, 2], "int64", [-2, -1]), "negative"),
        (([1.5], "int64"), "expected integers"),
        ((np.array([2**63], dtype=np.uint64), "int64"), "expected integers"),
        (([2**70], "int64"), "expected numbers"),
        ((["1"], "float32"), "expected numbers"),
        (([None, 1.0], "float32"), "expected numbers"),
        (([[1], [2, 3]], "int64"), "inhomogeneous"),
        (([5], "int64", [1, 3], [0, 1]), "come together"),
        (([5], "int64", None, [0, 1], [0]), "2-D shape"),
        (([5], "int64", [3], [0, 1], [0]), "2-D shape"),
        (([5], "int64", [1, -3], [0, 1], [0]), "2-D shape"),
        (([5], "int64", [2, 3], [0, 1], [0]), "2 rows"),
        (([5], "int64", [1, 3], [1, 1], [0]), "rows from 0"),
        (([5], "int64", [1, 3], [0, 2], [0]), "rows from 0"),
        (([5, 6], "int64", [2, 3], [0, 3, 2], [0, 1]), "decrease"),
        (([5], "int64", [1, 3], [0, 1], [3]), "columns below 3"),
        (([5], "int64", [1, 3], [0, 1], [-1]), "columns below 3"),
        (([5], "int64", [1, 3], [0, 1], [0, 1]), "columns below 3"),
    ],
)
def test_what_is_no_tensor_is_refused(arguments: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TensorData(*arguments)


def test_the_dtype_is_required() -> None:
    with pytest.raises(TypeError, match="dtype"):
        TensorData([1])


def test_equality_is_bit_for_bit() -> None:
    nan = TensorData([float("nan")], "float32")
    assert nan == TensorData([float("nan")], "float32")
    assert TensorData([0.0], "float32") != TensorData([-0.0], "float32")
    assert TensorData([1], "int64") != TensorData([1], "float32")
    assert TensorData([1, 2], "int64", [1, 2]) != TensorData([1, 2], "int64", [2])
    assert TensorData([5, 7, 9], "int64") != CSR
    assert nan != "something else"


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@settings(max_examples=40, deadline=None)
@given(st.one_of(hnp.arrays(np.float32, SHAPES), hnp.arrays(np.int64, SHAPES)))
def test_arrays_come_back_as_they_went_in(array: npt.NDArray[Any]) -> None:
    tensor = TensorData.from_numpy(array)
    assert array.tobytes() == tensor.to_numpy().tobytes()
    again = TensorData(tensor.to_numpy().reshape(-1), tensor.dtype, tensor.shape)
    assert tensor == again


def test_a_matrix_becomes_sparse_where_that_is_less() -> None:
    padded = np.full((4, 8), -1, dtype=np.int64)
    padded[1, 3], padded[3, 0] = 7, 0
    tensor = TensorData.from_torch_sparse(FakeTorchTensor(padded), pad_value=-1)
    assert TensorData([7, 0], "int64", [4, 8], [0, 0, 1, 1, 2], [3, 0]) == tensor
    np.testing.assert_array_equal(padded, tensor.to_numpy(pad_value=-1))


@pytest.mark.parametrize(
    "num_values,sparse", [(0, True), (2, True), (3, False), (4, False), (8, False)]
)
def test_so_many_values_of_eight_pay(num_values: int, sparse: bool) -> None:  # noqa: FBT001
    matrix = np.zeros((2, 4), dtype=np.float32)
    matrix.reshape(-1)[:num_values] = 0.5
    # Two rows take three pointers: 3 + 2 * 2 < 8 numbers, 3 + 2 * 3 are not.
    assert sparse is TensorData.from_torch_sparse(FakeTorchTensor(matrix)).is_sparse


def test_only_a_matrix_becomes_sparse() -> None:
    for shape in ((8,), (2, 2, 8)):
        zeros = np.zeros(shape, dtype=np.float32)
        assert not TensorData.from_torch_sparse(FakeTorchTensor(zeros)).is_sparse


@pytest.mark.parametrize("pad_value", [True, 0.5, "0", None])
def test_padding_is_an_integer(pad_value: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match="pad_value"):
        TensorData.from_torch_sparse(FakeTorchTensor(DENSE), pad_value)
    with pytest.raises(TypeError, match="pad_value"):
        CSR.to_numpy(pad_value)


def test_indices_are_integers_in_a_list() -> None:
    for crow, col in ((["0", "1"], [0]), ([0, 1], [0.0]), ([[0, 1]], [0])):
        with pytest.raises(ValueError, match="list of integers"):
            TensorData([5], "int64", [1, 3], crow, col)  # type: ignore[arg-type]  # on purpose


def test_indices_are_lists_and_arrays() -> None:
    assert ([0, 1, 3], [1, 0, 2]) == (CSR.sparse_crow_indices, CSR.sparse_col_indices)
    assert ["int64", "int64"] == [str(array.dtype) for array in CSR.csr_indices or ()]
    dense = TensorData([1], "int64")
    assert (None, None, None) == (
        dense.csr_indices,
        dense.sparse_crow_indices,
        dense.sparse_col_indices,
    )


def test_a_tensor_shows_its_form_and_not_its_values() -> None:
    assert "TensorData(dtype='int64', shape=[2])" == repr(TensorData([7, 8], "int64", [2]))
    assert "TensorData(dtype='int64', shape=[2, 3], num_values=3, layout='csr')" == repr(CSR)


MATRICES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        hnp.arrays(np.int64, MATRICES, elements=st.sampled_from([-1, 0, 0, 0, 5])),
        hnp.arrays(np.float32, MATRICES, elements=st.sampled_from([-1.0, 0.0, 0.0, 0.0, np.nan])),
    ),
    st.sampled_from([-1, 0, 5]),
)
def test_matrices_come_back_from_either_layout(array: npt.NDArray[Any], pad_value: int) -> None:
    tensor = TensorData.from_torch_sparse(FakeTorchTensor(array), pad_value)
    num_listed = int(np.sum(array != pad_value))
    pays = array.shape[0] + 1 + 2 * num_listed < array.size
    assert pays is tensor.is_sparse
    np.testing.assert_array_equal(array, tensor.to_numpy(pad_value))
    assert tensor == TensorData.model_validate(tensor.model_dump())
