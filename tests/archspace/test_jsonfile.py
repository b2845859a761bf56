"""JSON files with a kind and a version are read back, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlathe.archspace.errors import FormatError
from netlathe.archspace.jsonfile import read_json, write_json


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", "thing", 3, {"values": [1, 2.5, None, "ä"]})
    assert read_json(tmp_path / "new" / "a.json", "thing", 3) == {
        "schema": "netlathe.thing/3",
        "values": [1, 2.5, None, "ä"],
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_an_older_version_is_left_to_the_caller(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", "thing", 1, {})
    assert read_json(tmp_path / "a.json", "thing", 2)["schema"] == "netlathe.thing/1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
        pytest.param("[" * 100_000, "cannot be read as JSON", id="deep nesting"),
        ('{"schema": "netlathe.thing/1", "value": NaN}', "NaN is no number in JSON"),
        pytest.param(
            '{"schema": "netlathe.thing/1", "value": ' + "9" * 5000 + "}", "cannot be read as JSON", id="5000 digits"
        ),
        ("[]", "expected a netlathe thing, found something else"),
        ('{"schema": "netlathe.other/1"}', "expected a netlathe thing, found netlathe.other/1"),
        ('{"schema": "netlathe.thing/2"}', "newer"),
        ('{"schema": "netlathe.thing/²"}', "newer"),
        ('{"schema": "netlathe.thing"}', "newer"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(FormatError, match=r"a\.json.*") as caught:
        read_json(tmp_path / "a.json", "thing", 1)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_endless_schema_does_not_fill_the_screen(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": "' + "x" * 100_000 + '"}')
    with pytest.raises(FormatError) as caught:
        read_json(tmp_path / "a.json", "thing", 1)
    assert len(str(caught.value)) < 500


def test_a_file_of_any_size_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="larger than 16 MB"):
        read_json(tmp_path / "a.json", "thing", 1)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_json(tmp_path / "a.json", "thing", 1)
    with pytest.raises(FormatError, match="cannot be read"):
        read_json(tmp_path, "thing", 1)
