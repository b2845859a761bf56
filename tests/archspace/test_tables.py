"""Other people's latency tables as records."""

import pandas as pd
import pytest

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.configurations import graph_of
from netlathe.archspace.errors import FormatError, RecordError
from netlathe.archspace.records import Setup, Status
from netlathe.archspace.resources import data_path
from netlathe.archspace.tables import read_records

ROWS = pd.DataFrame(
    {
        "op": ["mbconv", "conv", "fully_connected"],
        "h": [14, 14, None],
        "cin": [8, 8, 64],
        "cout": [16, 8, 10],
        "kernel": [5, 3, None],
        "stride": [2, 1, None],
        "expand": [3, None, None],
        "act": [None, "relu", None],
        "latency_ms": [1.5, 0.25, 0.125],
    }
)


@pytest.fixture(params=["csv", "parquet"])
def written(request, tmp_path):
    def write(frame):
        path = tmp_path / f"table.{request.param}"
        if request.param == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)
        return path

    return write


def test_a_row_is_a_record_of_its_configuration(written):
    records = read_records(written(ROWS))
    assert [r.latency_ms for r in records] == [1.5, 0.25, 0.125]
    assert {r.kind for r in records} == {"block"}
    assert records[0].graph.key == MBConv(8, 16, 14, 14, 2, kernel=5, expand=3).graph().key
    assert records[1].graph.key == graph_of({**ROWS.iloc[1].rename({"h": "height", "act": "activation"})}).key
    assert records[2].name == "fully_connected (row 2)"


def test_what_the_table_does_not_tell_of_its_setup_is_said(written):
    (setup,) = {r.setup for r in read_records(written(ROWS))}
    assert setup.device == "unknown device"
    assert "processor" in dict(setup.details)["not told"]


def test_columns_of_a_setup_tell_it(written):
    told = Setup("pixel4", "sd855", "android 10", "tflite", "2.1", "xnnpack", 4, "f0", "int8", 2)
    cells = {name: value for name, value in told.to_json().items() if name != "details"}
    records = read_records(written(ROWS.assign(**cells)))
    assert {r.setup for r in records} == {told}
    assert {r.graph.inputs[0][0] for r in records} == {2}


def test_rows_of_several_setups_stay_apart(written):
    records = read_records(written(ROWS.assign(device=["a", "b", "a"])))
    assert [r.setup.device for r in records] == ["a", "b", "a"]


def test_another_column_may_hold_the_latency(written):
    path = written(ROWS.rename(columns={"latency_ms": "pixel4_ms"}))
    assert [r.latency_ms for r in read_records(path, "pixel4_ms")] == [1.5, 0.25, 0.125]
    with pytest.raises(RecordError, match=r"no column 'latency_ms' with milliseconds; there are .*pixel4_ms"):
        read_records(path)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_a_failure_and_no_number(written, latency):
    records = read_records(written(ROWS.assign(latency_ms=[1.5, latency, 0.125])))
    assert [r.status for r in records] == [Status.OK, Status.FAILED, Status.OK]
    with pytest.raises(RecordError, match="has no latency"):
        _ = records[1].latency_ms


def test_the_error_about_a_latency_column_names_the_option_and_those_there_are(written):
    path = written(ROWS.rename(columns={"latency_ms": "pixel4_ms"}).assign(pixel1_ms=1.0))
    with pytest.raises(RecordError, match=r"name one by --latency-column \(pixel4_ms or pixel1_ms\)"):
        read_records(path)


@pytest.mark.parametrize(
    "name", ["blocks_pixel1_pixel4", "blocks_unnamed_phone", "blocks_pixel1_spnas", "kernels_sd855"]
)
def test_public_tables_of_blocks_and_kernels_are_read_as_they_are(name):
    path = data_path(f"latency/{name}.parquet")
    records = read_records(path, "pixel4_ms" if name == "blocks_pixel1_pixel4" else "latency_ms")
    assert len(records) == len(pd.read_parquet(path))


def test_the_shipped_blocks_of_two_phones_are_what_was_measured():
    path = data_path("latency/blocks_pixel1_pixel4.parquet")
    frame = pd.read_parquet(path)
    records = read_records(path, "pixel1_ms")
    assert set(frame.se) == {0, 0.25}
    for record, row in zip(records, frame.itertuples(), strict=True):
        kinds = [node.op.kind for node in record.graph.nodes]
        assert ("mul" in kinds) == (row.se > 0)
        assert ("add" in kinds) == (row.cin != row.cout or row.stride == 1)
        reduced = [n.op.out_channels for n in record.graph.nodes if n.name == "se_reduce"]
        assert reduced in ([], [round(row.cin * row.expand / 4)])
        shortcuts = [n.op for n in record.graph.nodes if n.name == "shortcut"]
        assert [op.out_channels for op in shortcuts] == [row.cout] * (row.cin != row.cout)


def test_an_unreadable_latency_is_told_as_it_stands(written):
    records = read_records(written(ROWS.assign(latency_ms=["1.5", "fast", "0"])))
    assert [r.message for r in records[1:]] == ["the table says 'fast', and no number", "the table says 0 ms"]


def test_a_table_of_block_names_needs_no_other_columns(written):
    blocks = [MBConv(8, 8, 14, 14), MBConv(8, 16, 14, 14, 2, kernel=5)]
    records = read_records(written(pd.DataFrame({"block": [b.name for b in blocks], "latency_ms": [1.0, 2.0]})))
    assert [r.graph.key for r in records] == [b.graph().key for b in blocks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": ["mbconv", "teleport", "conv"]}, "row 1: unknown op 'teleport'"),
        ({"cout": [16, None, 10]}, "row 1: conv needs a value in the column 'cout'"),
        ({"batch": [1, 0.5, 1]}, "batch must be a whole number, got 0.5"),
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
    ],
)
def test_a_bad_cell_is_one_clear_error(written, change, message):
    with pytest.raises(RecordError, match=message) as caught:
        read_records(written(ROWS.assign(**change)))
    assert "table." in str(caught.value)


def test_a_table_of_something_else_says_what_it_needs(written):
    with pytest.raises(RecordError, match="a table of configurations needs a column op or block, and latency_ms"):
        read_records(written(pd.DataFrame({"epoch": [1], "loss": [0.5]})))


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_text("hello")
    with pytest.raises(FormatError, match="cannot be read as a table"):
        read_records(tmp_path / "t.parquet")
