"""What a command writes never replaces what the user would miss, and what cannot be written is known first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_cli import netlathe, refusal

import netlathe as nl
from netlathe import fitting
from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import sweep, write_whole, writing
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import Graph
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.archspace.resources import data_files
from netlathe.archspace.spaces import Architecture
from netlathe.archspace.tables import write_table
from netlathe.check_files import write_junit, write_markdown
from netlathe.checked import CheckReport
from netlathe.kernel_costs import write_breakdown
from netlathe.outputs import RUN_FILES, Kind, kind_of
from netlathe.runs.files import ARCHITECTURE, save_weights, write_csv

SETUP = Setup("a phone", "a chip", "an OS", "litert", "2.1")
PREDICTOR = "pixel4-cpu"
BLOCK = "mbconv_k3_e6_s1_c16-16_56x56_relu6"


def record(name: str, graph: Graph, ms: float) -> LatencyRecord:
    rounds = tuple(Round((ms * (1 + 0.001 * n),), started_at=float(n)) for n in range(4))
    return LatencyRecord(name, "block", graph, SETUP, Status.OK, Measurement(rounds))


RECORDS = [record(b.name, b.graph(), 1e-9 * b.graph().macs + 0.01) for b in tiny(16).distinct_blocks()[:40]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile, and a run's folder as far as export reads it; each test has a copy."""
    folder = tmp_path_factory.mktemp("made")
    with ProfileFile(folder / "p.sqlite", create=True) as file:
        file.add_records(RECORDS)
    space = tiny(8)
    architecture = space.architecture([0] * len(space.searchable))
    architecture.save(folder / "run" / ARCHITECTURE)
    save_weights(folder / "run", TorchGraph(architecture.graph()))
    shutil.copy(write(folder, "tflite"), folder / "run" / "network_int8.tflite")
    return folder


@pytest.fixture
def profile(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "p.sqlite", tmp_path))


@pytest.fixture
def predictor(tmp_path: Path) -> Path:
    shipped = {file.stem: file for file in data_files("predictors", ".json")}
    return Path(shutil.copy(shipped[PREDICTOR], tmp_path / "a.json"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run's folder, and in it an int8 file that must stay what it is."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def write(folder: Path, kind: Kind | str) -> Path:
    """A small file of that kind."""
    path = folder / f"one.{ {'tflite': 'tflite', 'onnx': 'onnx', 'arrays': 'npz'}.get(kind, 'file') }"
    graph = tiny(8).distinct_blocks()[0].graph()
    match kind:
        case "profile":
            ProfileFile(path, create=True).close()
        case "records":
            write_table(RECORDS[:2], path := folder / "one.csv")
        case "records as parquet":
            write_table(RECORDS[:2], path := folder / "one.parquet")
        case "latencies":
            write_csv(path, ["network", "phone"], [["one", 1.0]])
        case "breakdown":
            write_breakdown(nl.breakdown(graph), path)
        case "junit":
            write_junit(CheckReport((), 1.0, None, 0.9), path)
        case "markdown":
            write_markdown(CheckReport((), 1.0, None, 0.9), path)
        case "history":
            write_csv(path, ["epoch", "loss"], [[1, 1.0]])
        case "tflite":
            path.write_bytes(write_tflite(graph))
        case "onnx":
            path.write_bytes(write_onnx(graph))
        case "picture":
            Figure().savefig(path, format="png")
        case "arrays":
            np.savez(path, one=np.zeros(3))
        case "space":
            tiny(8).save(path)
        case "text":
            path.write_text("dear diary\n")
        case "photo":
            Image.new("RGB", (4, 4)).save(path, format="png")
        case "json":
            path.write_text('{"schema": "other/1"}')
        case _:
            write_json(path, kind, 1, {})
    return path


KINDS: list[Kind] = [
    "profile", "predictor", "architecture", "space", "search", "run", "demo", "pareto", "records", "latencies",
    "history", "picture", "tflite", "onnx", "arrays", "check", "breakdown", "junit", "markdown",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_netlathe_wrote_is_known_by_its_content(kind: Kind, tmp_path: Path) -> None:
    assert kind_of(write(tmp_path, kind)) == kind


def test_a_table_of_measurements_is_known_in_parquet_too(tmp_path: Path) -> None:
    assert kind_of(write(tmp_path, "records as parquet")) == "records"


@pytest.mark.parametrize("kind", ["text", "photo", "json"])
def test_other_files_are_of_no_known_kind(kind: str, tmp_path: Path) -> None:
    assert kind_of(write(tmp_path, kind)) is None


def refused_untouched(path: Path, *arguments: object) -> str:
    """The refusal of a command that leaves the file as it is, and nothing beside it."""
    before, beside = path.read_bytes(), sorted(path.parent.rglob("*"))
    message = refusal(*arguments)
    assert path.read_bytes() == before
    assert sorted(path.parent.rglob("*")) == beside
    return message


def spellings(path: Path) -> list[Path]:
    """Other names of a file."""
    link, hard, folder = path.with_name("link"), path.with_name("hard"), path.with_name("sub")
    link.symlink_to(path)
    os.link(path, hard)
    folder.mkdir()
    return [path, link, hard, folder / ".." / path.name, Path(os.path.relpath(path))]


def test_fit_does_not_write_over_the_profile_that_it_reads(profile: Path) -> None:
    for output in spellings(profile):
        assert "is an input" in refused_untouched(profile, "fit", profile, "--output", output)
        assert "is an input" in refused_untouched(profile, "fit", profile, "--output", output, "--force")
        one = profile.with_name("m.json")
        assert "is an input" in refused_untouched(profile, "fit", profile, "--output", one, "--plot", output)


def test_fit_does_not_write_over_the_profile_of_a_similar_device_or_its_log(profile: Path, tmp_path: Path) -> None:
    like = Path(shutil.copy(profile, tmp_path / "like.sqlite"))
    (tmp_path / "like.sqlite-wal").touch()
    for output in (like, tmp_path / "like.sqlite-wal"):
        message = refused_untouched(like, "fit", profile, "--like", like, "--output", output, "--force")
        assert "is an input" in message


def test_compare_does_not_write_over_a_predictor(predictor: Path) -> None:
    arguments = "compare", "mobilenet_v2", "--predictor", predictor, "--output"
    assert "is an input" in refused_untouched(predictor, *arguments, predictor)


def test_compare_does_not_write_over_the_networks_that_it_reads(run: Path) -> None:
    file = run / "architecture.json"
    for network in (run, file):
        message = refused_untouched(file, "compare", network, "--predictor", PREDICTOR, "--output", file, "--force")
        assert "is an input" in message


def test_profile_and_its_export_are_two_files(tmp_path: Path) -> None:
    arguments = "profile", "--space", "tiny"
    assert "call it .sqlite" in refusal(*arguments, "--output", tmp_path / "r.csv", "--export", tmp_path / "r.csv")
    both = tmp_path / "r.sqlite", tmp_path / "sub" / ".." / "r.sqlite"
    (tmp_path / "r.csv").symlink_to(tmp_path / "r.sqlite")
    assert "names the same file" in refusal(*arguments, "--output", both[0], "--export", tmp_path / "r.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize("name", sorted(RUN_FILES.keys() - {"network.onnx"}))
def test_export_does_not_write_over_a_runs_other_files(name: str, run: Path) -> None:
    file = run / name
    if not file.exists():
        file.write_bytes(b"of the run")
    form = "tflite" if file.suffix == ".tflite" else "onnx"
    if name == "network.tflite":
        message = refused_untouched(file, "export", run, "--output", file, "--format", form)
        assert "not a .tflite model that netlathe wrote" in message
    else:
        message = refused_untouched(file, "export", run, "--output", file, "--format", form, "--force")
        assert "is an input, or belongs to one" in message


def test_export_replaces_a_runs_own_file_of_the_same_form(run: Path) -> None:
    file = Path(shutil.copy(write(run.parent, "onnx"), run / "network.onnx"))
    before = file.read_bytes()
    assert netlathe("export", run, "--output", file).exit_code == 0
    assert file.read_bytes() != before


WRITERS: dict[str, tuple[Kind, list[str]]] = {
    "fit": ("predictor", ["fit", "P", "--residual", "none", "--splits", "configuration", "--output"]),
    "plot": ("picture", ["fit", "P", "--residual", "none", "--splits", "configuration", "--output", "NEW", "--plot"]),
    "compare": ("latencies", ["compare", BLOCK, "--predictor", PREDICTOR, "--output"]),
    "export": ("onnx", ["export", "RUN", "--format", "onnx", "--output"]),
}


def command(name: str, output: Path, run: Path, *more: str) -> list[object]:
    places = {"P": run.parent / "p.sqlite", "RUN": run, "NEW": run.parent / "new.json"}
    return [*(places.get(word, word) for word in WRITERS[name][1]), output, *more]


@pytest.mark.parametrize("kind", [*KINDS, "records as parquet", "text", "photo", "json"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_another_kind_is_not_replaced(name: str, kind: str, run: Path, profile: Path, tmp_path: Path) -> None:
    if kind == WRITERS[name][0]:
        pytest.skip("the command's own kind")
    (tmp_path / "there").mkdir()
    path = write(tmp_path / "there", kind)
    if name == "export" and kind == "tflite":
        path = path.rename(path.with_suffix(".file"))  # its ending would contradict --format
    message = refused_untouched(path, *command(name, path, run))
    assert "is there already, and is" in message
    assert "--force" in message


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_the_commands_own_kind_is_replaced_and_force_replaces_any(
    name: str, run: Path, profile: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for kind, more in ((WRITERS[name][0], ()), ("text", ("--force",))):
        path = write(tmp_path / "there", kind)
        before = path.read_bytes()
        path.chmod(0o640)
        result = netlathe(*command(name, path, run, *more))
        assert result.exit_code == 0, result.output
        assert path.read_bytes() != before
        assert path.stat().st_mode & 0o777 == 0o640
        path.unlink()
    path.touch()  # as mktemp leaves one
    assert netlathe(*command(name, path, run)).exit_code == 0


def unwritable(folder: Path) -> list[tuple[Path, str]]:
    (folder / "file").write_text("x")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return [
        (folder / "folder", "is a folder"),
        (Path("/"), "is a folder"),
        (folder / "file" / "x.json", "cannot be written"),
        (folder / "pipe", "is a named pipe"),
        (Path("/dev/null"), "is a device"),
        (Path("/proc/x.json"), "cannot be written"),
        (folder / ("x" * 300), "cannot be written"),
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_is_said_before_the_work(
    name: str, run: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(fitting, "_fit", work)
    monkeypatch.setattr("netlathe.hardware.price_networks", work)
    monkeypatch.setattr("netlathe.runs.files.load_network", work)
    for path, reason in unwritable(tmp_path):
        assert reason in refusal(*command(name, path, run)), path
        assert reason in refusal(*command(name, path, run, "--force")), path


def test_profile_says_before_it_opens_a_device_what_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("netlathe.profiler.devices.open_device", work)
    for path, reason in unwritable(tmp_path):
        assert reason in refusal("profile", "--output", path)
    assert "is there already, and is a predictor" in refusal("profile", "--output", write(tmp_path, "predictor"))
    (tmp_path / "table.csv").mkdir()
    message = refusal("profile", "--output", tmp_path / "new.sqlite", "--export", tmp_path / "table.csv")
    assert "is a folder" in message
    (tmp_path / "notes.csv").write_text("my,notes\n")
    message = refusal("profile", "--output", tmp_path / "new.sqlite", "--export", tmp_path / "notes.csv")
    assert "--export" in message
    assert not (tmp_path / "new.sqlite").exists()


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="drops root's rights to see what others see")
def test_missing_rights_are_said_before_the_work(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.setuid(65534)\n"
        "from pathlib import Path; from netlathe.outputs import Output, OutputError, check_outputs\n"
        "for path in sys.argv[1:]:\n"
        "    try: check_outputs([Output('--output', Path(path), 'predictor')], [], force=True)\n"
        "    except OutputError as error: print(error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / "kept.json").chmod(0o444)
    paths = [tmp_path / "new.json", tmp_path / "kept.json", tmp_path / "no" / "folder" / "x.json"]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=Path.cwd())
    if "ModuleNotFoundError" in done.stderr or "Permission" in done.stderr:
        pytest.skip("others cannot read this checkout")
    first, second, third = done.stdout.splitlines()
    assert "cannot be written (Permission denied)" in first
    assert "is write-protected" in second
    assert "cannot be written (Permission denied)" in third
    assert not (tmp_path / "no").exists()


def search(output: Path, *more: object, data: object = "digits") -> Sequence[object]:
    return "search", "--data", data, "--output", output, "--predictor", PREDICTOR, "--target-ms", 1, *more


def test_search_does_not_write_over_what_it_reads(run: Path, tmp_path: Path) -> None:
    table = run / "history.csv"
    table.write_text("block,energy\nx,1\n")
    message = refused_untouched(table, *search(run, "--limit", f"{table}:energy=3"))
    assert "--output" in message
    assert "is an input" in message
    table.unlink()
    for option, file in (("--space", "report.json"), ("--profile", "checkpoint.npz")):
        (run / file).touch()
        assert "is an input" in refusal(*search(run, option, run / file))
    message = refusal(*search(run, "--target", f"{run / 'search.json'}=3"))
    assert "is an input" in message
    (tmp_path / "8ms").mkdir()
    space = shutil.copy(write(tmp_path, "space"), tmp_path / "8ms" / "search.json")
    arguments = "search", "--data", "digits", "--output", tmp_path, "--predictor", PREDICTOR, "--targets", "8,9"
    assert "is an input" in refusal(*arguments, "--space", space)


def test_search_and_demo_do_not_fill_a_folder_of_images_or_replace_other_files(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
    images = tmp_path / "images"
    for output in (images, images / "run"):
        assert "lies among the images" in refusal(*search(output, data=images))
        assert "lies among the images" in refusal("demo", "--output", output, "--data", images)
    for split in ("train", "val"):
        shutil.copytree(images, tmp_path / "splits" / split)
    assert "lies among the images" in refusal(*search(tmp_path / "splits" / "val" / "x", data=tmp_path / "splits"))
    assert "no images found" in refusal(*search(tmp_path / "splits" / "run", data=tmp_path / "splits"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "network.onnx").write_bytes(b"another network")
    (tmp_path / "run" / "predictor.json").write_text("{}")
    assert "not an .onnx model that netlathe wrote" in refusal(*search(tmp_path / "run"))
    (tmp_path / "run" / "network.onnx").unlink()
    assert "not a predictor that netlathe wrote" in refusal("demo", "--output", tmp_path / "run")
    assert "cannot be written" in refusal(*search(tmp_path / "run" / "predictor.json"))


def test_pareto_checks_both_of_its_files_first(tmp_path: Path) -> None:
    for name in ("pareto.png", "pareto.json"):
        (tmp_path / name).write_text("mine")
        message = refused_untouched(tmp_path / name, "pareto", tmp_path / "runs", "--output", tmp_path)
        assert "is there already" in message
        (tmp_path / name).unlink()


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(
    tmp_path: Path, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    one = netlathe("fit", "~/p.sqlite", "--output=~/sub/m.json", "--residual", "none", "--plot=~/sub/m.png")
    assert one.exit_code == 0, one.output
    assert netlathe("compare", BLOCK, "--predictor=~/sub/m.json", "--output=~/c.csv").exit_code == 0
    assert "there is no such file" in refusal("show", "~/none.onnx")
    assert str(tmp_path / "none.json") in refusal(*search(tmp_path / "run", "--target", "~/none.json=3"))
    assert {path.name for path in tmp_path.iterdir()} >= {"sub", "p.sqlite", "c.csv"}
    assert not (tmp_path / "~").exists()
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {"m.json", "m.png"}


def test_writing_leaves_the_old_file_and_nothing_else_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_and_fail(error: BaseException) -> None:
        with writing(path) as part:
            part.write_text("half")
            assert path.read_text() == "old"
            raise error

    for error in (OSError("disk full"), KeyboardInterrupt(), ValueError("no")):
        with pytest.raises(type(error)):
            write_and_fail(error)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_under_a_name_that_others_can_prepare(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    for trap in (".a.json.part", "a.json.part", ".a.json.part-"):
        (tmp_path / trap).symlink_to(victim)
    write_json(tmp_path / "a.json", "thing", 1, {})
    assert victim.read_text() == "dear"
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == "netlathe.thing/1"


def test_writing_follows_links_and_refuses_devices(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "real.json")
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.json").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="named pipe"):
        write_whole(tmp_path / "pipe", "text")


def test_what_a_killed_writer_left_is_swept_for_that_file_alone(tmp_path: Path) -> None:
    code = (
        "import os, sys; from netlathe.archspace.files import writing\n"
        "with writing(sys.argv[1]) as part: part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    for name in ("a.npz", "b.npz"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    sweep(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == left[1:]


def test_a_table_that_fails_halfway_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.csv"
    write_table(RECORDS[:2], path)
    before = path.read_bytes()

    def fail(self: object, target: Path, **_: object) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", fail)
    with pytest.raises(FormatError, match="No space left"):
        write_table(RECORDS, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_architecture_is_the_same_architecture_by_any_name(run: Path) -> None:
    assert Architecture.load(run / "architecture.json").name.startswith("tiny")
