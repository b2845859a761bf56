"""Arguments of long work that can be refused by themselves, before anything that takes seconds is imported or done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.presets import load_space
from netlathe.archspace.profile_file import ProfileFile
from netlathe.made_modules import check_made, is_made_name
from netlathe.outputs import COMPRESSION_FILES, RUN_FILES, check_run_folder
from netlathe.pricing import Unknown
from netlathe.profiler.devices import DeviceOptions, check_device
from netlathe.runs.compression.strategies import check_strategy as check_compress_strategy
from netlathe.runs.settings import check_strategy as check_search_strategy
from netlathe.targets import Goal, Limit, Target, check_curve, folder_name, make_goal

if TYPE_CHECKING:
    from netlathe.archspace.spaces import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Common:
    """Arguments that a search and a compression share, as they were given."""

    target: Target | Sequence[Target]
    output: str | Path
    data: Any = None
    """Source of images, as load_images takes it, or loaded ones."""
    limits: Sequence[Limit] = ()
    unknown: Unknown = "refuse"
    device: str | None = None
    profile: str | Path | None = None
    benchmark_binary: str | Path | None = None
    recipe: str | None = None
    writes: bool = True
    """Whether this process writes the output, of several that work together."""

    @property
    def targets(self) -> list[Target]:
        """The target, or all of them."""
        return [self.target] if isinstance(self.target, Target) else list(self.target)

    @property
    def images(self) -> str | None:
        """Path of the images, or their name."""
        return str(self.data) if isinstance(self.data, str | Path) else None

    @property
    def inputs(self) -> list[str]:
        """Files that are read, and names that may stand in place of one."""
        given = (self.profile, self.benchmark_binary)
        found = [str(one) for one in given if one is not None]
        found += [file for one in self.targets for file in one.files]
        return [*found, *(one.name.rpartition(":")[0] for one in self.limits if ":" in one.name)]

    def check_names(self) -> None:
        """Raises NetlatheError for a recipe or a device that there is not."""
        if self.recipe is not None:
            from netlathe.training.recipe_names import check_recipe

            check_recipe(self.recipe)
        if self.device is not None:
            binary = None if self.benchmark_binary is None else Path(self.benchmark_binary)
            check_device(self.device, DeviceOptions(benchmark_binary=binary))

    def checked_goal(self) -> Goal:
        """The goal, with predictors and tables read. Raises as make_goal does, and NetlatheError for images or a
        profile that there are not."""
        if self.images is not None:
            check_images(self.images)
        if self.profile is not None:
            check_profile(self.profile)
        return make_goal(self.targets, self.limits, unknown=self.unknown)


def check_images(source: str | Path) -> None:
    """Raises DataError for a name or path at which there are no images."""
    from netlathe.training.source_paths import DIGITS, check_images_path

    if str(source) != DIGITS:
        check_images_path(Path(source))


def check_profile(path: str | Path) -> None:
    """Raises FormatError for a file that is no profile."""
    ProfileFile(path, only_reads=True).close()


def search_goal(
    common: Common,
    space: str | Path | SearchSpace,
    *,
    targets_ms: Sequence[float] | None = None,
    strategy: str = "binarized",
    resolution: int | None = None,
    width: float | None = None,
) -> Goal:
    """The goal of a search, all of whose other arguments may be what they are. Raises what `netlathe.search` raises
    before it begins."""
    check_search_strategy(strategy)
    common.check_names()
    if targets_ms is not None:
        check_curve(targets_ms)
    if common.writes:
        read = [*common.inputs, *([str(space)] if isinstance(space, str | Path) else [])]
        below = [folder_name(ms) for ms in targets_ms or ()]
        check_run_folder(Path(common.output), read, common.images, below, RUN_FILES)
    if isinstance(space, str | Path):
        load_space(str(space), resolution=resolution, width=width)
    return common.checked_goal()


def compress_goal(common: Common, model: object, *, strategy: str, precisions: Sequence[str] = ("float32",)) -> Goal:
    """The goal of a compression, all of whose other arguments may be what they are. Raises what `netlathe.compress`
    raises before it begins."""
    from netlathe.compress.precision import expect_precisions

    check_compress_strategy(strategy)
    expect_precisions(precisions)
    common.check_names()
    if common.writes:
        read = [*common.inputs, *([str(model)] if isinstance(model, str | Path) else [])]
        check_run_folder(Path(common.output), read, common.images, written=COMPRESSION_FILES)
    if isinstance(model, str | Path):
        _check_model(str(model))
    return common.checked_goal()


def _check_model(model: str) -> None:
    if is_made_name(model):
        check_made(model)
    elif not Path(model).exists():
        raise FormatError(f"{model}: there is no such file")
