from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.errors import RecordError
from netlathe.archspace.records import (
    LatencyRecord,
    Measurement,
    Round,
    Setup,
    Status,
    lower_quartile,
    noise_floor,
    single_setup,
)

SETUP = Setup("phone", "SoC", "Android 14", "litert", "2.3", details=(("sha256", "ab"), ("governor", "performance")))
BLOCK = ConvBlock(3, 8, 16, 16)


def rounds(*latencies_ms: float) -> Measurement:
    return Measurement(tuple(Round((ms,)) for ms in latencies_ms))


def record(measurement: Measurement | None = None, setup: Setup = SETUP, message: str = "") -> LatencyRecord:
    status = Status.FAILED if measurement is None else Status.OK
    return LatencyRecord(BLOCK.name, "block", BLOCK.graph(), setup, status, measurement, message)


def test_setup_survives_json_and_keeps_its_key_whatever_the_order_of_its_details():
    reordered = dataclasses.replace(SETUP, details=tuple(reversed(SETUP.details)))
    assert Setup.from_json(json.loads(json.dumps(SETUP.to_json()))) == SETUP
    assert reordered == SETUP
    assert reordered.key == SETUP.key


def test_setups_that_differ_in_one_field_have_different_keys_and_name_the_field():
    other = dataclasses.replace(SETUP, threads=4)
    assert other.key != SETUP.key
    assert SETUP.differences(other) == ["threads: 1 / 4"]


def test_details_that_differ_are_named_one_by_one():
    other = dataclasses.replace(SETUP, details=(("sha256", "cd"), ("unit", "7")))
    assert SETUP.differences(other) == ["governor: performance / -", "sha256: ab / cd", "unit: - / 7"]


@pytest.mark.parametrize("data", [{}, {"device": "x", "nonsense": 1}, None, [], {"details": 3}])
def test_json_that_is_no_setup_is_refused(data):
    with pytest.raises(RecordError, match="not a setup"):
        Setup.from_json(data)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_lower_quartile_is_numpys(values):
    assert lower_quartile(values) == pytest.approx(np.quantile(values, 0.25), rel=1e-12)


def test_a_rounds_latency_is_the_lower_quartile_of_its_runs_over_its_drift():
    assert Round((1.0, 9.0, 2.0, 3.0, 5.0), drift=2.0).latency_ms == 1.0


def test_a_measurements_latency_is_the_median_of_its_rounds_and_ignores_outliers():
    assert rounds(1.0, 1.1, 50.0, 0.9, 1.0).latency_ms == 1.0


def test_spread_and_relative_error_have_their_closed_forms():
    measurement = rounds(9.0, 10.0, 11.0, 12.0)  # quartiles 9.75 and 11.25, median 10.5
    assert measurement.spread == pytest.approx(1.5 / 1.349 / 10.5)
    assert measurement.relative_error == pytest.approx(1.2533 * measurement.spread / 2)


def test_spread_ignores_outliers_but_not_a_machine_of_two_speeds():
    assert rounds(*[1.0] * 20, 9.0, 9.0).spread == 0
    assert rounds(*[1.0] * 13, *[1.5] * 12).spread == pytest.approx(0.5 / 1.349)


def test_an_interval_needs_three_rounds_and_shrinks_around_the_latency():
    assert rounds(1.0, 1.1).interval_ms is None
    assert rounds(2.0, 2.0, 2.0).interval_ms == (2.0, 2.0)
    few, many = rounds(0.9, 1.0, 1.1), rounds(*[0.9, 1.0, 1.1] * 10)
    (low, high), (lower, higher) = many.interval_ms, few.interval_ms
    assert lower < low < 1.0 < high < higher
    assert low * high == pytest.approx(1.0)  # as far by ratio either way


@pytest.mark.parametrize("count", [3, 5, 10, 40])
def test_an_interval_holds_the_true_latency_of_gaussian_rounds_about_as_often_as_it_says(count):
    values = np.random.default_rng(0).normal(1.0, 0.03, size=(1000, count))
    intervals = [rounds(*row).interval_ms for row in values]
    assert 0.8 < np.mean([low <= 1.0 <= high for low, high in intervals]) < 0.95


def test_repeatability_compares_even_with_odd_rounds_from_four_rounds_on():
    assert rounds(1.0, 2.0, 1.0).repeatability is None
    assert rounds(1.0, 2.0, 1.0, 2.0).repeatability == pytest.approx(0.5)


def test_two_rounds_are_never_stable_and_three_equal_ones_are():
    assert not rounds(1.0, 1.0).is_stable
    assert rounds(1.0, 1.0, 1.0).is_stable


def test_rounds_that_disagree_are_not_stable():
    assert not rounds(1.0, 2.0, 3.0, 1.5).is_stable


@pytest.mark.parametrize("samples", [(0.0,), (-1.0,), (math.nan,), (math.inf,), (1.0, 0.0), ()])
def test_a_measurement_of_impossible_times_cannot_be_made(samples):
    with pytest.raises(RecordError):
        Measurement((Round(samples),))


@pytest.mark.parametrize("drift", [0.0, -1.0, math.nan, math.inf])
def test_a_measurement_of_impossible_drift_cannot_be_made(drift):
    with pytest.raises(RecordError, match="drift"):
        Measurement((Round((1.0,), drift),))


def test_a_measurement_without_rounds_cannot_be_made():
    with pytest.raises(RecordError, match="not a number"):
        Measurement(())


def test_the_latency_of_a_failed_record_is_an_error_with_the_reason():
    with pytest.raises(RecordError, match="cable"):
        _ = record(message="cable pulled").latency_ms


def test_a_record_is_either_ok_with_a_measurement_or_neither():
    with pytest.raises(RecordError, match="either"):
        LatencyRecord("x", "block", BLOCK.graph(), SETUP, Status.OK)
    with pytest.raises(RecordError, match="either"):
        LatencyRecord("x", "block", BLOCK.graph(), SETUP, Status.FAILED, rounds(1.0))


def test_an_unknown_kind_of_record_is_refused():
    with pytest.raises(RecordError, match="layer"):
        LatencyRecord("x", "layer", BLOCK.graph(), SETUP, Status.OK, rounds(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "original",
    [record(Measurement((Round((0.1, 0.2), 1.25, 1e9 + 0.123456), Round((0.3,))))), record(message='a "b",\nc')],
    ids=["ok", "failed"],
)
def test_a_record_survives_its_row(original):
    assert LatencyRecord.from_row(original.to_row()) == original


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "great"),
        ("rounds", "[{}]"),
        ("rounds", "nonsense"),
        ("rounds", '[{"samples_ms": [-1], "drift": 1, "started_at": 0}]'),
        ("graph", "{}"),
        ("setup", "[]"),
        ("kind", "layer"),
    ],
)
def test_a_row_that_is_no_record_is_refused(field, value):
    row = {**record(rounds(1.0)).to_row(), field: value}
    with pytest.raises(RecordError):
        LatencyRecord.from_row(row)


def test_a_row_of_a_newer_netlathe_is_refused_with_what_to_do():
    with pytest.raises(RecordError, match="upgrade netlathe"):
        LatencyRecord.from_row({**record(rounds(1.0)).to_row(), "schema": 99})


def test_unlike_setups_refuse_to_mix_and_say_how_they_differ():
    records = [record(rounds(1.0)), record(rounds(1.0), dataclasses.replace(SETUP, dtype="int8"))]
    with pytest.raises(RecordError, match="dtype: float32 / int8"):
        single_setup(records)
    assert single_setup(records[:1]) == SETUP
    with pytest.raises(RecordError, match="no records"):
        single_setup([])


def test_noise_floor_is_the_median_repeatability_of_those_that_have_one():
    records = [record(rounds(1.0, 1.1, 1.0, 1.1)), record(rounds(1.0, 1.2, 1.0, 1.2)), record(rounds(1.0)), record()]
    assert noise_floor(records) == pytest.approx(((1 - 1 / 1.1) + (1 - 1 / 1.2)) / 2)
    assert noise_floor(records[2:]) is None
