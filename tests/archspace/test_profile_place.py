"""A profile file that is deleted, moved, replaced or overwritten while it is open: told, and nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.errors import FormatError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.archspace.tables import read_records

SETUP = Setup("phone", "SoC", "Android 14", "litert", "2.3")
BLOCK = ConvBlock(3, 8, 16, 16)
GRAPH = BLOCK.graph()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "there" / "p.sqlite"


@pytest.fixture
def profile(path):
    """With two rounds."""
    file = ProfileFile(path, create=True)
    file.add_setup(SETUP)
    file.add_graph(BLOCK.name, "block", GRAPH)
    for started_at in (1.0, 2.0):
        add_round(file, started_at)
    yield file
    file.close()


def add_round(file, started_at):
    file.add_round(SETUP, {GRAPH.key: [0.5]}, started_at=started_at)


def stored_rounds(path):
    with ProfileFile(path) as file:
        return [info.started_at for info in file.round_log(SETUP)]


def delete_with_its_log(path):
    for name in path.parent.iterdir():
        name.unlink()


def replace(path):
    other = path.with_name("other")
    other.write_text("another")
    other.replace(path)


@pytest.mark.parametrize(
    ("lose", "words"),
    [(Path.unlink, "deleted"), (delete_with_its_log, "deleted"), (replace, "replaced by another file")],
)
def test_a_file_that_is_lost_is_told_at_the_next_round_and_all_was_saved_beside_it(profile, path, lose, words):
    lose(path)
    with pytest.raises(FormatError, match=rf"{words} while it was in use.*p\.rescued\.sqlite: move it to"):
        add_round(profile, 3.0)
    profile.close()
    rescued = path.with_name("p.rescued.sqlite")
    assert stored_rounds(rescued) == [1.0, 2.0, 3.0]
    rescued.replace(path)
    assert stored_rounds(path) == [1.0, 2.0, 3.0]


def test_what_is_now_in_a_lost_files_place_is_left_alone(profile, path):
    replace(path)
    with pytest.raises(FormatError):
        add_round(profile, 3.0)
    profile.close()
    assert path.read_text() == "another"


def test_a_deleted_folder_leaves_the_rescued_file_in_the_current_one(profile, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(path.parent)
    with pytest.raises(FormatError, match="saved as"):
        profile.set_outcome(SETUP, GRAPH.key, Status.OK)
    profile.close()
    assert [r.latency_ms for r in read_records(tmp_path / "p.rescued.sqlite")] == [0.5]
    assert not path.parent.exists()


def move_folder(path):
    return path.parent.rename(path.parent.with_name("elsewhere")) / path.name


def move_file(path):
    return path.rename(path.with_name("q.sqlite"))


@pytest.mark.parametrize("move", [move_folder, move_file])
def test_a_moved_file_holds_all_and_the_message_says_where_it_is(profile, path, move):
    target = move(path)
    with pytest.raises(FormatError, match=rf"moved to {target} while it was in use\. Nothing is lost"):
        add_round(profile, 3.0)
    # As after kill -9, and without the log that a moved file leaves behind.
    shutil.copy(target, target.with_name("alone"))
    assert stored_rounds(target.with_name("alone")) == [1.0, 2.0, 3.0]
    profile.close()
    assert stored_rounds(target) == [1.0, 2.0, 3.0]


def test_where_the_system_does_not_tell_where_a_file_went_it_is_copied(profile, path, monkeypatch):
    monkeypatch.setattr("netlathe.archspace.profile_place._links", lambda folder: iter(()))
    move_file(path)
    with pytest.raises(FormatError, match="deleted while"):
        add_round(profile, 3.0)
    assert stored_rounds(path.with_name("p.rescued.sqlite")) == [1.0, 2.0, 3.0]


def older_copy(path):
    with ProfileFile(path.with_name("older"), create=True) as file:
        file.add_setup(SETUP)
    shutil.copyfile(path.with_name("older"), path)  # as cp: the same inode


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:4096])


def flush(file):
    """Moves all from SQLite's log into the file."""
    file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    file.round_log(SETUP)


@pytest.mark.parametrize("damage", [older_copy, empty, cut])
def test_a_file_that_is_overwritten_in_place_is_told(profile, path, damage):
    flush(profile)
    damage(path)
    with pytest.raises(FormatError, match="overwritten by another program") as caught:
        add_round(profile, 3.0)
    profile.close()
    rescued = path.with_name("p.rescued.sqlite")
    assert rescued.exists() == ("saved as" in str(caught.value))
    if rescued.exists():
        assert stored_rounds(rescued) == [1.0, 2.0, 3.0]
    else:
        assert "could not be saved" in str(caught.value)


def test_what_was_overwritten_is_whole_where_sqlites_log_still_held_all(profile, path):
    older_copy(path)
    add_round(profile, 3.0)
    profile.close()
    assert stored_rounds(path) == [1.0, 2.0, 3.0]


def test_other_connections_and_a_new_date_are_no_overwriting(profile, path):
    path.touch()
    add_round(profile, 3.0)
    with ProfileFile(path, create=True) as other:
        add_round(other, 4.0)
        flush(other)
    add_round(profile, 5.0)
    assert stored_rounds(path) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_once_a_file_is_lost_no_method_says_otherwise_and_it_is_saved_once(profile, path):
    path.unlink()
    messages = set()
    for call in (profile.records, profile.setups, lambda: add_round(profile, 3.0), profile.__exit__):
        with pytest.raises(FormatError) as caught:
            call(*[None] * 3) if call == profile.__exit__ else call()
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert [name.name for name in path.parent.glob("*.sqlite")] == ["p.rescued.sqlite"]


def test_an_interrupt_over_a_lost_file_does_not_say_that_all_is_kept(profile, path):
    path.unlink()
    with pytest.raises(FormatError, match="deleted while"):
        profile.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_two_campaigns_that_lose_one_file_save_it_under_one_name_and_another_rescue_is_kept(profile, path):
    first = path.with_name("p.rescued.sqlite")
    second = ProfileFile(path, create=True)
    path.unlink()
    for file, started_at in ((profile, 3.0), (second, 4.0)):
        with pytest.raises(FormatError, match=r"p\.rescued\.sqlite"):
            add_round(file, started_at)
        file.close()
    assert stored_rounds(first) == [1.0, 2.0, 3.0, 4.0]
    fresh = ProfileFile(path, create=True)
    path.unlink()
    with pytest.raises(FormatError, match=r"p\.rescued-2\.sqlite"):
        fresh.add_setup(SETUP)
    fresh.close()
    assert stored_rounds(first) == [1.0, 2.0, 3.0, 4.0]


def test_a_reader_is_not_disturbed_by_a_file_that_is_deleted_meanwhile(profile, path):
    with ProfileFile(path) as reader:
        path.unlink()
        assert len(reader.round_log(SETUP)) == 2
    assert not path.with_name("p.rescued.sqlite").exists()


def test_a_rescue_that_is_not_possible_is_told(profile, path, tmp_path, monkeypatch):
    monkeypatch.setattr("netlathe.archspace.profile_place._rescue_names", lambda path: iter([Path("/proc/x")]))
    path.unlink()
    with pytest.raises(FormatError, match="could not be saved"):
        add_round(profile, 3.0)


def test_a_full_disk_is_told_stores_no_part_of_a_round_and_the_file_stays_good(profile, path):
    (pages,) = profile._db.execute("PRAGMA page_count").fetchone()
    profile._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FormatError, match="full"):
        profile.add_round(SETUP, {GRAPH.key: [0.1] * 10000}, started_at=3.0)
    profile._db.execute("PRAGMA max_page_count = 100000")
    add_round(profile, 4.0)
    assert stored_rounds(path) == [1.0, 2.0, 4.0]
    assert len(profile.rounds(SETUP)[GRAPH.key]) == 3


def test_what_json_cannot_hold_is_the_callers_error_and_not_a_damaged_file(profile):
    with pytest.raises(TypeError, match="not JSON serializable"):
        profile.add_round(SETUP, {GRAPH.key: [0.5]}, started_at=3.0, conditions={"x": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        profile.set_outcome(SETUP, GRAPH.key, Status.OK, details={"x": object()})
    assert len(profile.round_log(SETUP)) == 2
