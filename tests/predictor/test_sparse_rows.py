"""Sparse rows do what scipy's do."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from netlathe.predictor import sparse_rows
from netlathe.predictor.sparse_rows import SparseRows

RNG = np.random.default_rng(1)
DENSE = RNG.random((40, 15)) * (RNG.random((40, 15)) < 0.2)
DENSE[[0, 7, 8, 39]] = 0.0  # rows without entries at both ends and in between
ROWS, EXPECTED = SparseRows.of(DENSE), csr_array(DENSE)


def test_a_matrix_is_kept_by_its_entries():
    assert np.array_equal(ROWS.dense(), DENSE)
    assert len(ROWS.values) == np.count_nonzero(DENSE)
    assert np.array_equal(np.stack([ROWS.rows, ROWS.columns]), np.array(EXPECTED.nonzero()))


@pytest.mark.parametrize("cached", [1, 70, 1 << 18])
def test_products_are_those_of_the_dense_matrix_however_many_parts_they_are_made_in(cached, monkeypatch):
    monkeypatch.setattr(sparse_rows, "CACHED_ENTRIES", cached)
    vector, matrix = RNG.random(15), RNG.random((15, 6))
    assert ROWS @ vector == pytest.approx(EXPECTED @ vector)
    assert ROWS @ matrix == pytest.approx(EXPECTED @ matrix)


def test_a_transpose_takes_a_vector():
    vector = RNG.random(40)
    assert ROWS.transposed_times(vector) == pytest.approx(EXPECTED.T @ vector)


@pytest.mark.parametrize("rows", [[3, 0, 3, 39], [], slice(30, 50), DENSE[:, 0] > 0])
def test_rows_are_taken_by_index_and_flag(rows):
    rows = np.array(rows, dtype=int) if isinstance(rows, list) else rows
    assert np.array_equal(ROWS.take(rows).dense(), DENSE[rows])


@pytest.mark.parametrize("columns", [[4, 2], [], list(range(15))])
def test_columns_are_taken_in_their_order(columns):
    assert np.array_equal(ROWS.take_columns(np.array(columns, dtype=int)).dense(), DENSE[:, columns])


def test_entries_of_one_place_add_up():
    twice = SparseRows(np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2]), 3)
    assert np.array_equal(twice.dense(), [[0, 3, 0]])
    assert np.array_equal(twice @ np.array([5.0, 7.0, 9.0]), [21.0])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_nothing_gives_zeros(shape):
    nothing = SparseRows.of(np.zeros(shape))
    assert np.array_equal(nothing @ np.ones((shape[1], 2)), np.zeros((shape[0], 2)))
    assert np.array_equal(nothing.transposed_times(np.ones(shape[0])), np.zeros(shape[1]))
