"""What a release says of itself agrees: version, changelog, Pythons, extras, workflows."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
CLASSIFIED = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), flags=re.MULTILINE)


def workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return loaded


def runs(job: dict[str, Any]) -> list[str]:
    """The commands of a job."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_changelog_has_the_version_with_its_day_below_what_is_unreleased() -> None:
    titles = re.findall(r"^## (.*)$", CHANGELOG, flags=re.MULTILINE)
    assert titles[0] == "Unreleased"
    version, _, day = titles[1].partition(" - ")
    assert version == PROJECT["version"]
    assert date.fromisoformat(day)
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_pythons_that_are_named_are_the_allowed_and_tested_ones() -> None:
    assert PROJECT["requires-python"] == f">={CLASSIFIED[0]}"
    jobs = workflow("ci.yml")["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == CLASSIFIED
    assert len(jobs["tests"]["strategy"]["matrix"]["os"]) == 3
    from scripts.check_platforms import PYTHONS

    assert list(PYTHONS) == CLASSIFIED


def test_the_extra_all_has_every_extra_of_a_user() -> None:
    extras = PROJECT["optional-dependencies"]
    (every,) = extras["all"]
    named = re.fullmatch(r"netlathe\[(.*)\]", every)
    assert named
    assert set(named[1].split(",")) == extras.keys() - {"dev", "docs", "all"}
    documented = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "install.md").read_text(), flags=re.MULTILINE)
    assert {*documented} == extras.keys() - {"dev", "docs"}


def test_a_release_is_what_was_built_and_checked_published_without_a_token() -> None:
    assert workflow("publish.yml")[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    build, publish = (workflow("publish.yml")["jobs"][name] for name in ("build", "publish"))
    checked = [
        command for command in runs(build) if "twine" in command or "check-wheel" in command or "build" in command
    ]
    assert checked == runs(workflow("ci.yml")["jobs"]["package"])
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "with" not in publish["steps"][-1]


def test_workflows_name_no_index_and_run_what_is_there() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert "://" not in path.read_text()
    whole = workflow("ci.yml")["jobs"]["whole"]
    for command in runs(whole):
        first = command.split()[0]
        assert first == "sudo" or (ROOT / first).is_file()
