"""The benchmark's own arithmetic, and that no split shows what is to be predicted."""

import json
import math

import numpy as np
import pytest

from benchmarks.predictor import nb201, report
from benchmarks.predictor.baselines import forest, nn_meter_features, ridge, roofline, work_of
from benchmarks.predictor.runner import run_task
from benchmarks.predictor.score import Score, over_seeds, score, worst_tenth
from benchmarks.predictor.splits import Known, Measured, Split, item_key, leave_out, random_split
from benchmarks.predictor.tasks import WORST, Task, all_tasks, device_family, read
from netlathe.archspace.configurations import graph_of
from scripts import latency_tables as tables

CONVS = [
    graph_of({"op": "conv", "height": h, "cin": c, "cout": 2 * c, "kernel": k})
    for h in (7, 14, 28, 56)
    for c in (8, 16, 32)
    for k in (1, 3)
]
WORK_MS = 1e-6 * np.array([graph.macs for graph in CONVS]) + 0.01
TASKS = all_tasks()


def a_task(group_of=lambda index: f"phone {index}", phones=10, **options) -> Task:
    def splits(seed):
        for index in range(phones):
            yield random_split(group_of(index), Measured(CONVS, WORK_MS), 5, 100 * seed + index)

    return Task("table", "split", splits, {"": 99.0, WORST: 98.0}, ("roofline",), **options)


def the_truth(split: Split, seed: int):
    return np.stack([split.test_ms, 0.9 * split.test_ms, 1.1 * split.test_ms])


def test_a_perfect_predictor_gets_everything_right():
    mean, worst = run_task(a_task(), range(3), product=the_truth)
    for row in (mean, worst):
        assert row.scores["netlathe"].mean == pytest.approx(Score(0.0, 100.0, 100.0, 1.0, 0.0, 100.0))
        assert row.scores["netlathe"].deviation == pytest.approx(Score(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), abs=1e-12)
    assert (mean.learnt, mean.judged, mean.seeds) == (5, 10 * (len(CONVS) - 5), 3)
    assert report.cells(mean)[-1] == "99 ✓"


def test_seven_percent_off_is_within_ten_but_not_within_five():
    row = run_task(a_task(), [0], product=lambda split, seed: 1.07 * split.test_ms)[0]
    assert row.scores["netlathe"].mean == pytest.approx(Score(7.0, 0.0, 100.0, 1.0, 0.0), nan_ok=True)
    assert math.isnan(row.scores["netlathe"].deviation.mape)


def test_a_refused_prediction_is_a_miss_and_is_said():
    result = score(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, np.nan]))
    assert result == pytest.approx(Score(0.0, 75.0, 75.0, 1.0, 25.0), nan_ok=True)
    low, high = np.array([0.5, 2.1, 2.0, np.nan]), np.array([1.0, 2.5, 4.0, np.nan])
    assert score(np.arange(1.0, 5), np.stack([np.array([1, 2, 3, np.nan]), low, high])).coverage == pytest.approx(
        200 / 3
    )
    assert score(np.ones(2), np.full(2, np.nan)).within_10 == 0

    def refuses_one(split, seed):
        return np.where(np.arange(len(split.test_ms)) == 0, np.nan, split.test_ms)

    assert "5.3 % refused" in report.refusals(run_task(a_task(), [0], product=refuses_one))[0]


def test_the_worst_tenth_is_that_over_all_seeds():
    def shares(*values):
        return {f"phone {i}": Score(0, 0, value, 1) for i, value in enumerate(values)}

    seeds = [shares(50, 40, *[90] * 18), shares(60, 100, *[90] * 18)]
    assert worst_tenth(seeds) == ["phone 0", "phone 1"]
    assert worst_tenth([shares(*[90] * 9, 10)]) == ["phone 9"]


def test_the_spread_is_that_between_seeds():
    spread = over_seeds([Score(1, 80, 90, 0.9), Score(3, 90, 100, 1.0)])
    assert spread.mean == pytest.approx(Score(2, 85, 95, 0.95), nan_ok=True)
    assert spread.deviation.within_10 == pytest.approx(math.sqrt(50))


def test_what_was_learnt_under_one_name_is_not_judged_under_another():
    twice = Measured([*CONVS, *CONVS], np.concatenate([WORK_MS, WORK_MS]))
    split = random_split("", twice, 20, seed=0)
    assert not {item_key(i) for i in split.train} & {item_key(i) for i in split.test}
    stages = list(leave_out("", twice, [graph.inputs[0][-1] for graph in twice.items]))
    assert [len(split.test) for split in stages] == [16, 16, 16]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_split_of_the_public_tables_leaks(task: Task):
    splits = list(task.splits(0))
    for split in splits[:: len(splits) // 3 + 1]:
        assert len(split.train) == len(split.train_ms) > 0
        assert len(split.test) == len(split.test_ms) > 0
        assert not {item_key(item) for item in split.train} & {item_key(item) for item in split.test}
        if split.known is not None:
            assert split.group not in split.known.devices
            family = device_family if task.by_rank else tables.phone_model
            assert family(split.group) not in {family(device) for device in split.known.devices}


def test_networks_of_an_unseen_phone_may_be_unseen_by_every_other():
    task = next(task for task in TASKS if "model and network unseen" in task.split)
    split = next(task.splits(0))
    known = {item_key(item) for item in split.known.items}
    assert not known & {item_key(item) for item in split.test}
    assert known >= {item_key(item) for item in split.train}


def test_a_seed_gives_the_same_splits_again_and_another_seed_others():
    task = next(task for task in TASKS if "random" in task.split)
    first, again, other = (next(task.splits(seed)).train_ms for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_kernels_of_a_judged_network_are_not_learnt():
    task = next(task for task in TASKS if "GPU" in task.split)
    frame = read(tables.pixel4_gpu_kernels, tables.SHIPPED).frame
    networks = read(tables.pixel4_networks, tables.SHIPPED).pieces
    split = next(task.splits(0))
    judged = [name for name, pieces in networks.items() if any(pieces is item for item in split.test)]
    assert len(split.train) == (~frame.model.isin(judged)).sum() + len(networks) - len(judged)


def test_a_cell_runs_every_op_unless_its_runtime_prunes():
    cell = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|none~2|"
    fixed = nb201.pieces_of("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", pruned=True)
    assert len(nb201.pieces_of(cell, pruned=True)) == len(fixed)
    assert len(nb201.pieces_of(cell)) == len(fixed) + 15 * (6 + 3)


def test_the_roofline_is_exact_where_latency_is_a_sum_of_work():
    rates = np.array([2e-7, 1e-7, 0, 0, 0, 1e-8, 0, 0.01])
    data = Measured(CONVS, work_of(CONVS) @ rates)
    split = random_split("", data, 12, 0)
    assert roofline(split, 0) == pytest.approx(split.test_ms, rel=1e-6)


def test_baselines_add_up_kernels_where_kernels_were_measured():
    networks = [(CONVS[0], CONVS[1]), (CONVS[2], CONVS[3], CONVS[4])]
    sums = np.array([WORK_MS[:2].sum(), WORK_MS[2:5].sum()])
    split = Split("", [*CONVS, networks[0]], np.append(WORK_MS, 3 * sums[0]), [networks[1]], 3 * sums[1:])
    assert roofline(split, 0) == pytest.approx(3 * sums[1:], rel=1e-6)
    assert forest(split, 0) > 0


def test_ridge_finds_a_device_that_is_twice_as_slow_as_a_known_one():
    known = Known(CONVS, np.stack([WORK_MS, WORK_MS**1.1], axis=1), ["a", "b"])
    split = random_split("", Measured(CONVS, 2 * WORK_MS), 12, 0, known=known)
    assert ridge(split, 0) == pytest.approx(split.test_ms, rel=0.02)
    alone = Known(CONVS, WORK_MS[:, None], ["a"])
    assert ridge(split._replace(known=alone), 0) == pytest.approx(split.test_ms, rel=0.001)


def test_features_of_a_network_add_up_its_pieces_work():
    pieces = nn_meter_features(CONVS[:3])
    (network,) = nn_meter_features([tuple(CONVS[:3])])
    assert network[:7] == pytest.approx(pieces[:, :7].mean(axis=0))
    assert network[7:] == pytest.approx(pieces[:, 7:].sum(axis=0))


def test_the_table_is_written_as_markdown_and_as_json():
    rows = run_task(a_task(), [0], product=the_truth)
    lines = report.markdown(report.HEADER, [report.cells(row) for row in rows], report.WORDS).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    content = json.loads(report.as_json(rows, []))
    assert content["tasks"][1]["scores"]["netlathe"]["mean"]["within_10"] == 100
    assert content["tasks"][0]["scores"]["netlathe"]["standard_deviation"]["mape"] is None
