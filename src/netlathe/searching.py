"""The search stage of a run: from a job to the architecture that was found, through any number of interruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.spaces import Architecture
from netlathe.job import Job
from netlathe.judging import Judged, choose_network
from netlathe.logs import SearchLog, scalars, write_history
from netlathe.pictures import draw_architectures, draw_judged, draw_search
from netlathe.run import FOUND, HISTORY, MEASURED, PICTURE, SEARCH_PICTURE, forget_network, save_search
from netlathe.stages import part_latencies_ms
from netlathe.stopping import stopping
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    from torch import Tensor

    from netlathe.checkpoints import RunCheckpointer
    from netlathe.search import Searcher, SearchResult
    from netlathe.search.costs import Constraint


@dataclass(frozen=True)
class Found:
    """What a search leaves for the training, and for the report."""

    architecture: Architecture
    judged: Judged
    expected: tuple[float, ...]
    """E[cost] at the end of the search, one per constraint, as `costs` and `limits`."""
    costs: tuple[float, ...]
    """Of the architecture, by the tables."""
    constraints: tuple[Constraint, ...]
    weights: Mapping[str, Tensor]
    """The supernet's, on the architecture."""
    warnings: tuple[str, ...]
    seconds: float
    """Of the search, over all its processes."""

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        own = {**asdict(replace(self, constraints=(), weights={})), "judged": asdict(self.judged)}
        return {**own, "architecture": self.architecture.to_json(), "weights": dict(self.weights)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], constraints: list[Constraint]) -> Found:
        return cls(
            **{
                **state,
                "architecture": Architecture.from_json(state["architecture"]),
                "judged": Judged(**state["judged"]),
                "constraints": tuple(constraints),
            }
        )


def find_architecture(job: Job, kept: Mapping[str, Any] | None, warm: Callable[[], Searcher] | None = None) -> Found:
    """Searches, chooses the network by its judge, and leaves search.json, history.csv and pictures in the folder. A
    search that was cut off goes on from its checkpoint; one that ended is not repeated, not even for another judge.

    `kept` is what job.found_checkpointer() has loaded. `warm` gives a searcher whose warm weights several targets
    share. Raises TargetError when no network keeps the limits, TrainingError when the loss diverges, and FormatError
    for a checkpoint of another search in the folder.
    """
    constraints = job.goal.constraints(job.space)
    if kept is not None and kept["judge"] == job.judge():
        found = Found.from_state(kept["found"], constraints)
        job.listener.note(f"  {found.architecture.name} was found before; {job.folder / FOUND} tells so")
        return found
    job.held.make()  # what cannot be written should show before hours of work
    checkpointer = job.checkpointer()
    state = checkpointer.load()
    begun = warm().retarget(constraints) if warm and state is None else None
    searcher = begun or job.searcher(constraints)
    checkpointer.begin()
    if state is not None:
        checkpointer.resume(searcher.load_state_dict, state)
        job.listener.note(f"  Goes on from step {searcher.step} of {searcher.steps}")
    run_searcher(searcher, job, checkpointer)
    with job.listener.progress("comparing networks", "networks") as update:
        result = searcher.result(lambda done, total: update(done, total, ""))
    return _conclude(job, result, checkpointer)


def run_searcher(searcher: Searcher, job: Job, checkpointer: RunCheckpointer, *, warm_only: bool = False) -> None:
    """With its progress on the listener, and its log in the folder."""
    folder = job.folder / "tensorboard" / "search" if job.tensorboard else None
    label = "warming up" if warm_only else "searching"
    with (
        job.listener.progress(label, "steps") as update,
        scalars(folder, first_step=searcher.step + 1) as scalar,
        stopping(checkpointer) as between,
    ):
        log = SearchLog(searcher, job.folder / HISTORY, update, scalar, between)
        searcher.run(log, until="warm" if warm_only else "end", checkpointer=checkpointer)


def _conclude(job: Job, result: SearchResult, checkpointer: RunCheckpointer) -> Found:
    """From the scores to the network, and the files that tell of it."""
    listener, goal = job.listener, job.goal
    judged, warnings = choose_network(job.space, goal, result.scores, result.constraints, job.device, listener)
    architecture = job.space.architecture(judged.path)
    listener.note(
        f"  Found {architecture.name}: {millions(architecture.macs)} MACs, judged by the {judged.by} "
        f"({judged.judgements} looked at)"
    )
    found = Found(
        architecture=architecture,
        judged=judged,
        expected=result.history[-1].expected,
        costs=tuple(c.table.cost(judged.path) for c in result.constraints),
        constraints=result.constraints,
        weights=result.supernet.extract(judged.path).state_dict(),
        warnings=tuple(warnings),
        seconds=checkpointer.seconds(),
    )
    # In this order: wherever this is cut off, the next call chooses again.
    store = job.found_checkpointer()
    store.forget()
    forget_network(job.folder)
    _forget_other_training(job, architecture)
    _write(job, result, found)
    store.save({"judge": job.judge(), "found": found.to_state()})
    return found


def _forget_other_training(job: Job, architecture: Architecture) -> None:
    """Where the network before was another one, its training is of no use; where it is the same, it goes on."""
    from netlathe.training.checkpoint import ForeignCheckpointError

    try:
        job.training_checkpointer(architecture).load()
    except ForeignCheckpointError as error:
        if "architecture" in error.differences:
            job.listener.note(
                f"  The network that was trained in {job.folder} was another one; its training is dropped"
            )
            job.forget_training()
    except FormatError:
        job.forget_training()


def _write(job: Job, result: SearchResult, found: Found) -> None:
    folder, architecture, main = job.folder, found.architecture, job.goal.main
    save_search(
        folder,
        {
            "space": job.space.to_json(),
            "run": job.description(),
            "setup": main.model.setup_.to_json(),
            "architecture": architecture.to_json(),
            "judged": found.judged.to_json(),
            "seconds": round(found.seconds, 1),
            **result.summary(),
            "decoded": list(result.path),
            "choices": list(found.judged.path),
            "costs": list(found.costs),
        },
    )
    write_history(folder / HISTORY, result.history, result.constraints)
    draw_search(result.history, result.constraints, found.costs, folder / SEARCH_PICTURE)
    predicted_ms = float(main.model.predict([architecture])[0])
    title = (
        f"{architecture.name}: {milliseconds(predicted_ms)} ms predicted, target {milliseconds(main.limit_ms)} ms on "
        f"{main.name}"
    )
    parts = part_latencies_ms(main.model, architecture)
    draw_architectures([(title, architecture, parts)], folder / PICTURE)
    if found.judged.timed:
        draw_judged(found.judged.timed, main.limit_ms, folder / MEASURED)


def warm_searcher(job: Job) -> Callable[[], Searcher]:
    """The warm-up that several targets share: run at the first call, kept for the others, checkpointed in the job's
    folder. Unneeded, and so not run, where every target's search has begun."""
    kept: list[Searcher] = []

    def warm() -> Searcher:
        if not kept:
            job.held.make()
            checkpointer = job.checkpointer()
            searcher = job.searcher(job.goal.constraints(job.space))
            state = checkpointer.load()
            if state is not None:
                checkpointer.resume(searcher.load_state_dict, state)
            run_searcher(searcher, job, checkpointer, warm_only=True)
            kept.append(searcher)
        return kept[0]

    return warm
