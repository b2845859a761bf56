from __future__ import annotations

import dataclasses
import math
import sqlite3
import threading
from contextlib import closing

import pytest

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.errors import ArchspaceError, FormatError, RecordError
from netlathe.archspace.profile_file import Again, ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.archspace.sustained import SustainedPoint, SustainedRun
from netlathe.archspace.tables import read_records, write_table

SETUP = Setup("phone", "SoC", "Android 14", "litert", "2.3")
OTHER = dataclasses.replace(SETUP, threads=4)
BLOCKS = [ConvBlock(3, 8 + i, 16, 16) for i in range(3)]
GRAPHS = [block.graph() for block in BLOCKS]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "phone.profile"


@pytest.fixture
def profile(path):
    with ProfileFile(path, create=True) as file:
        file.add_setup(SETUP)
        for block, graph in zip(BLOCKS, GRAPHS, strict=True):
            file.add_graph(block.name, "block", graph)
        yield file


def fill(profile):
    """Three rounds; the first graph is ok, the second failed, the third unfinished."""
    for i in range(3):
        samples = {GRAPHS[0].key: [1.0 + i, 2.0], GRAPHS[2].key: [0.1 / 3]}
        profile.add_round(SETUP, samples, started_at=100.25 + i, drift=1.0 + i / 10, conditions={"load_1min": 0.5})
    profile.set_outcome(SETUP, GRAPHS[0].key, Status.OK)
    profile.set_outcome(SETUP, GRAPHS[1].key, Status.FAILED, "segmentation fault")


def test_a_new_file_that_another_is_about_to_write_is_waited_for(path):
    ProfileFile(path, create=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")  # what a new file is in
    writes, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writes.set()
            may_end.wait(60)
            other.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    assert writes.wait(60)
    ends = threading.Timer(0.2, may_end.set)  # after the first try, or before it: both must do
    ends.start()
    with ProfileFile(path, create=True) as file:
        file.add_setup(SETUP)
    writer.join()
    ends.join()


def test_what_is_stored_is_read_again_exactly(profile, path):
    fill(profile)
    expected = tuple(Round((1.0 + i, 2.0), 1.0 + i / 10, 100.25 + i) for i in range(3))
    records = read_records(path)
    assert {r.name: r.status for r in records} == {BLOCKS[0].name: Status.OK, BLOCKS[1].name: Status.FAILED}
    assert records[0].measurement == Measurement(expected)
    assert records[0].graph == GRAPHS[0]
    assert records[0].setup == SETUP
    assert records[1].message == "segmentation fault"


def test_rounds_of_unfinished_graphs_are_kept_but_are_no_records(profile):
    fill(profile)
    assert len(profile.rounds(SETUP)[GRAPHS[2].key]) == 3
    assert GRAPHS[2].key not in {r.graph.key for r in profile.records()}


def test_a_round_stored_twice_is_stored_once(profile):
    fill(profile)
    before = profile.rounds(SETUP)
    fill(profile)
    assert profile.rounds(SETUP) == before


def test_a_round_with_an_unknown_graph_is_stored_not_even_partly(profile):
    with pytest.raises(FormatError, match="FOREIGN KEY"):
        profile.add_round(SETUP, {GRAPHS[0].key: [1.0], "unknown": [1.0]}, started_at=1.0)
    assert profile.rounds(SETUP) == {}
    assert profile.round_log(SETUP) == []


def test_a_graph_keeps_the_name_under_which_it_first_came(profile):
    profile.add_graph("another name", "network", GRAPHS[0])
    fill(profile)
    assert BLOCKS[0].name in {r.name for r in profile.records()}


def test_a_round_and_the_earlier_drifts_that_it_moves_are_stored_together_or_not_at_all(profile):
    fill(profile)
    with pytest.raises(ArchspaceError):
        profile.add_round(SETUP, {GRAPHS[0].key: [1.0]}, started_at=200.0, drift=1.3, moved={100.25: math.nan})
    assert [r.drift for r in profile.rounds(SETUP)[GRAPHS[0].key]] == [1.0, 1.1, 1.2]
    profile.add_round(SETUP, {GRAPHS[0].key: [1.0]}, started_at=200.0, drift=1.3, moved={100.25: 2.0, 200.0: 1.3})
    assert [r.drift for r in profile.rounds(SETUP)[GRAPHS[0].key]] == [2.0, 1.1, 1.2, 1.3]


def test_the_round_log_tells_drift_and_conditions(profile):
    fill(profile)
    log = profile.round_log(SETUP)
    assert [info.started_at for info in log] == [100.25, 101.25, 102.25]
    assert log[0].conditions == {"load_1min": 0.5}


def test_anchors_are_kept_per_setup(profile):
    profile.add_setup(OTHER)
    profile.set_anchors(SETUP, [GRAPHS[0].key, GRAPHS[1].key])
    profile.set_anchors(SETUP, [GRAPHS[0].key])
    assert profile.anchors(SETUP) == {graph.key: graph for graph in GRAPHS[:2]}
    assert profile.anchors(OTHER) == {}


def test_setups_in_one_file_do_not_mix(profile):
    fill(profile)
    profile.add_setup(OTHER)
    profile.add_round(OTHER, {GRAPHS[0].key: [9.0]}, started_at=100.25)
    profile.set_outcome(OTHER, GRAPHS[0].key, Status.OK)
    assert [r.latency_ms for r in profile.records(OTHER)] == [9.0]
    assert len(profile.rounds(SETUP)[GRAPHS[0].key]) == 3
    assert set(profile.setups()) == {SETUP, OTHER}


def test_a_reader_sees_finished_rounds_while_a_campaign_writes(profile, path):
    fill(profile)
    found = []
    reader = threading.Thread(target=lambda: found.extend(read_records(path)))
    with profile._transaction():
        profile._db.execute("DELETE FROM outcomes")
        reader.start()
        reader.join(timeout=30)
    assert len(found) == 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_give_back_equal_records(profile, tmp_path, suffix):
    fill(profile)
    records = profile.records()
    table = tmp_path / f"records{suffix}"
    write_table(records, table)
    assert read_records(table) == records


@pytest.mark.parametrize("message", ["", "a,b", 'say "no"\nthen\r\nstop', "nan", "café ☂", "1.50"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_keep_awkward_messages(tmp_path, suffix, message):
    record = LatencyRecord(BLOCKS[0].name, "block", GRAPHS[0], SETUP, Status.FAILED, None, message)
    write_table([record], tmp_path / f"t{suffix}")
    assert read_records(tmp_path / f"t{suffix}") == [record]


def test_an_import_adds_what_is_new_and_only_once(profile, tmp_path):
    fill(profile)
    records = profile.records()
    with ProfileFile(tmp_path / "copy", create=True) as copy:
        assert copy.add_records(records) == 2
        assert copy.records() == records
        assert copy.add_records(records) == 1  # the failed one may be overwritten, the ok one stays
        assert copy.records() == records


def test_an_import_replaces_a_failure_but_never_a_measurement(profile):
    fill(profile)
    good = Measurement((Round((5.0,), 1.0, 7.0),))
    offered = [LatencyRecord(b.name, "block", b.graph(), SETUP, Status.OK, good) for b in BLOCKS[:2]]
    assert profile.add_records(offered) == 1
    found = {r.name: r.latency_ms for r in profile.records()}
    assert found[BLOCKS[1].name] == 5.0
    assert found[BLOCKS[0].name] != 5.0


def test_an_import_that_breaks_off_leaves_nothing(profile, tmp_path):
    fill(profile)
    good = profile.records()[0]
    bad = LatencyRecord("x", "block", GRAPHS[1], SETUP, Status.FAILED, None, "", (("init_ms", {1}),))  # type: ignore[arg-type]
    with ProfileFile(tmp_path / "copy", create=True) as copy:
        with pytest.raises(FormatError):
            copy.add_records([good, bad])
        assert copy.setups() == []
        assert copy.records() == []


def test_a_missing_file_is_an_error_unless_it_is_to_be_made(path):
    with pytest.raises(FormatError, match="no such profile file"):
        ProfileFile(path)
    ProfileFile(path, create=True).close()
    assert read_records(path) == []


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("content", [b"hello, this is text\n" * 100, b"\x00" * 4096, b"SQLite format 3\x00garbage"])
def test_a_file_that_is_not_sqlite_is_refused_and_left_alone(path, content, create):
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"phone\.profile"):
        ProfileFile(path, create=create)
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [True, False])
def test_a_foreign_database_is_refused_and_left_alone(path, create):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE birds (name TEXT)")
    database.commit()
    database.close()
    content = path.read_bytes()
    with pytest.raises(FormatError, match="not a netlathe profile"):
        ProfileFile(path, create=create)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("schema", "later"),
    [
        (1, ["details", "op_times", "chosen", "again", "discounted", "load_points", "loads"]),
        (2, ["chosen", "again", "discounted"]),
        (3, ["again", "discounted"]),
        (5, ["made", "load_points", "loads"]),
        (6, ["load_points", "loads"]),
    ],
)
def test_a_file_of_an_older_schema_is_read_and_gets_the_tables_that_it_lacks(profile, path, schema, later):
    fill(profile)
    expected = profile.records(), profile.rounds(SETUP)
    for table in later:
        profile._db.execute(f"DROP TABLE {table}")
    profile._db.execute(f"PRAGMA user_version = {schema}")
    profile.close()
    with ProfileFile(path) as old:
        assert (old.records(), old.rounds(SETUP)) == expected
        assert (old.op_times(SETUP), old.chosen(SETUP), old.made(), old.loads(SETUP)) == ([], [], [], [])
        old.add_chosen(SETUP, [GRAPHS[1].key])
        assert old.chosen(SETUP) == [GRAPHS[1].key]


def load_at(started_at: float, key: str = GRAPHS[0].key) -> SustainedRun:
    """Forty seconds in which a network gets slower by 1 % a second."""
    told = {"battery_c": 30.5, "freq_mhz": "1800,900"}
    points = tuple(SustainedPoint(float(at), key, 1 + 0.01 * at, told) for at in range(40))
    return SustainedRun(points, {key: BLOCKS[0].name}, 40.0, started_at=started_at)


def test_loads_are_read_again_exactly_in_order_of_time_each_once(profile):
    later, earlier = load_at(200.0), load_at(100.0)
    for one in (later, earlier, later):
        profile.add_load(SETUP, one)
    assert profile.loads(SETUP) == [earlier, later]
    assert [one.slower for one in profile.loads(SETUP)[0].minutes] == pytest.approx(
        [(1 + 0.01 * at) / 1.045 for at in (4.5, 14.5, 24.5, 34.5)]
    )
    profile.add_setup(OTHER)
    assert profile.loads(OTHER) == []


def test_a_load_is_stored_whole_or_not_at_all(profile):
    with pytest.raises(FormatError):
        profile.add_load(SETUP, load_at(100.0, "unknown"))
    assert profile.loads(SETUP) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE loads SET duration_s = 1e300", "UPDATE loads SET duration_s = -1",
        "UPDATE load_points SET at_s = at_s + 99", "UPDATE load_points SET latency_ms = 0",
        "UPDATE load_points SET conditions = '[1]'", "DELETE FROM load_points",
        "UPDATE load_points SET conditions = '{\"battery_c\": 1e308}'",
    ],
)  # fmt: skip
def test_a_damaged_load_is_one_clear_error(profile, damage):
    profile.add_load(SETUP, load_at(100.0))
    profile._db.execute(damage)
    with pytest.raises(FormatError, match="damaged"):
        profile.loads(SETUP)


def test_each_way_of_making_is_told_once_in_its_order(profile):
    for at, command in ((1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "a")):
        profile.add_made(at, {"command": command})
    assert profile.made() == [(1.0, {"command": "a"}), (3.0, {"command": "b"}), (4.0, {"command": "a"})]


def test_what_was_chosen_keeps_its_order_until_it_is_forgotten(profile):
    first, second, third = (graph.key for graph in GRAPHS)
    profile.add_chosen(SETUP, [third, first])
    profile.add_chosen(SETUP, [first, second])
    assert profile.chosen(SETUP) == [third, first, second]
    profile.forget_chosen(SETUP, [first])
    assert profile.chosen(SETUP) == [third, second]
    profile.add_setup(OTHER)
    assert profile.chosen(OTHER) == []


def test_samples_that_no_longer_count_are_kept_and_others_count_only_once_they_are_complete(profile):
    fill(profile)
    key, rounds = GRAPHS[0].key, profile.rounds(SETUP)[GRAPHS[0].key]
    (before,) = [record for record in profile.records() if record.graph.key == key]
    profile.begin_again(SETUP, [key], "unstable", rounds[-1].started_at)
    for n in range(3):
        profile.add_round(SETUP, {key: [7.0]}, started_at=rounds[-1].started_at + 1 + n)
    assert [r for r in profile.records() if r.graph.key == key] == [before]
    profile.end_again(SETUP, key, (Status.OK, "", None), discounted=[one.started_at for one in rounds])
    (after,) = [record for record in profile.records() if record.graph.key == key]
    assert [one.samples_ms for one in after.measurement.rounds] == [(7.0,)] * 3
    assert profile.rounds(SETUP)[key][: len(rounds)] == rounds


def test_what_is_measured_again_is_known_until_it_is_told(profile):
    fill(profile)
    first, second = GRAPHS[0].key, GRAPHS[1].key
    profile.begin_again(SETUP, [first], "unstable", 100.0)
    profile.begin_again(SETUP, [first, second], "failed", 200.0)
    assert profile.again(SETUP) == {first: Again("unstable", 100.0), second: Again("failed", 200.0)}
    profile.end_again(SETUP, first, None, message="gone")
    profile.forget_again(SETUP, "failed")
    assert profile.again(SETUP)[first] == Again("unstable", 100.0, True, "gone")
    profile.forget_again(SETUP, "unstable")
    assert profile.again(SETUP) == {second: Again("failed", 200.0)}


def test_a_file_of_a_newer_schema_is_refused_with_what_to_do(profile, path):
    profile._db.execute("PRAGMA user_version = 99")
    with pytest.raises(FormatError, match="upgrade netlathe"):
        ProfileFile(path)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE samples SET samples_ms = 'nonsense'",
        "UPDATE samples SET samples_ms = '[]'",
        "UPDATE samples SET samples_ms = '[-1]'",
        "UPDATE samples SET samples_ms = '[\"a\"]'",
        "UPDATE rounds SET drift = 0",
        "UPDATE graphs SET json = '{}'",
        "UPDATE setups SET json = '[1]'",
        "UPDATE outcomes SET status = 'great'",
        "DELETE FROM samples",
        "DROP TABLE samples",
    ],
)
def test_a_damaged_content_is_an_error_that_names_the_file(profile, path, damage):
    fill(profile)
    profile._db.execute("PRAGMA foreign_keys = OFF")
    profile._db.execute(damage)
    with pytest.raises(FormatError, match=r"phone\.profile"):
        read_records(path)


def test_a_file_cut_short_or_overwritten_in_the_middle_is_an_error(profile, path):
    fill(profile)
    profile.close()
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:4096] + b"\xaa" * (len(content) - 4096)):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"damaged|cannot use"):
            read_records(path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="cannot be opened"):
        ProfileFile(tmp_path / "file" / "x.profile", create=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_written_whole_into_a_folder_that_is_made_or_is_refused(profile, tmp_path, suffix):
    fill(profile)
    path = tmp_path / "new" / f"t{suffix}"
    write_table(profile.records(), path)
    assert [name.name for name in path.parent.iterdir()] == [path.name]
    with pytest.raises(FormatError, match="the table cannot be written"):
        write_table(profile.records(), path / f"t{suffix}")
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match="the table cannot be written"):
        write_table(profile.records(), path)
    assert [name.name for name in path.parent.iterdir()] == [path.name]


def test_tables_of_another_ending_or_without_records_are_refused(profile, tmp_path):
    fill(profile)
    with pytest.raises(FormatError, match=r"\.csv or \.parquet"):
        write_table(profile.records(), tmp_path / "records.xlsx")
    with pytest.raises(RecordError, match="no records"):
        write_table([], tmp_path / "records.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_that_are_no_tables_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(FormatError, match="cannot be read"):
        read_records(path)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(FormatError, match="cannot be read"):
        read_records(path)


def test_a_table_without_the_columns_of_records_is_refused(tmp_path):
    (tmp_path / "birds.csv").write_text("name,wings\nwren,2\n")
    with pytest.raises(RecordError, match="no column graph, kind"):
        read_records(tmp_path / "birds.csv")
