"""The flatbuffer writer, against the library's own builder and reader."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from netlathe.archspace.forms.flatbuffer import FlatWriter


def pool_options(builder: Any, stride: int) -> int:
    return schema.Pool2DOptionsT(padding=1, strideW=stride, strideH=-3, fusedActivationFunction=2).Pack(builder)


def read(content: bytes, table: Any) -> dict[str, Any]:
    return vars(table.InitFromPackedBuf(content))


def by_the_library(table: Any) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    "table",
    [
        schema.Pool2DOptionsT(padding=1, strideW=2**31 - 1, strideH=-3, fusedActivationFunction=2),
        schema.SoftmaxOptionsT(beta=0.25),
        schema.ReducerOptionsT(keepDims=True),
        schema.FullyConnectedOptionsT(keepNumDims=True, weightsFormat=1),
        schema.ReshapeOptionsT(newShape=np.array([1, 2, 3], np.int32)),
        schema.PadOptionsT(),
    ],
    ids=lambda table: type(table).__name__,
)
def test_a_table_reads_like_the_one_that_the_library_writes(table: Any) -> None:
    writer = FlatWriter()
    content = writer.finish(table.Pack(writer), b"TFL3")
    found, expected = read(content, type(table)), read(by_the_library(table), type(table))
    assert {k: np.array(v).tolist() for k, v in found.items()} == {k: np.array(v).tolist() for k, v in expected.items()}


def test_a_file_begins_with_the_root_and_the_identifier_and_is_a_multiple_of_16_bytes() -> None:
    writer = FlatWriter()
    content = writer.finish(pool_options(writer, 1), b"TFL3")
    assert content[4:8] == b"TFL3"
    assert len(content) % 16 == 0


def test_tables_are_aligned_to_4_bytes_and_equal_layouts_share_a_vtable() -> None:
    writer = FlatWriter()
    offsets = [pool_options(writer, 1), writer.string("odd"), pool_options(writer, 2), writer.string("length")]
    content = writer.finish(offsets[0], b"TFL3")
    positions = [len(content) - offset for offset in offsets]
    assert {position % 4 for position in positions} == {0}
    vtables = {p - int.from_bytes(content[p : p + 4], "little", signed=True) for p in (positions[0], positions[2])}
    assert len(vtables) == 1


def test_a_vector_begins_as_aligned_as_it_is_asked_to() -> None:
    writer = FlatWriter()
    offsets = [writer.vector(bytes(range(size)), size, 16) for size in (1, 5, 16, 33)]
    content = writer.finish(pool_options(writer, 1), b"TFL3")
    for offset, size in zip(offsets, (1, 5, 16, 33), strict=True):
        start = len(content) - offset + 4  # behind its length
        assert start % 16 == 0
        assert content[start : start + size] == bytes(range(size))


def test_equal_vectors_of_integers_are_stored_once() -> None:
    writer = FlatWriter()
    assert writer.integers((1, 2)) == writer.integers((1, 2)) != writer.integers((2, 1))
