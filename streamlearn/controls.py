"""What is done to a run by hand: rolling its model back, at a row that every replay repeats.

A command never touches a checkpoint. It appends a line to `controls.jsonl` beside the order log and
the checkpoints of the run, with the row at which the run stood; the next start, and every replay
along that order, does it at that row. So model arrays and the version change, and nothing else:
positions, late labels and metrics go on.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from streamlearn.block import Block, Columns, concatenate
from streamlearn.checkpoint import Checkpoint, CheckpointStore, describe
from streamlearn.contracts import Json, State
from streamlearn.durable import disk_errors, sync_folder
from streamlearn.errors import UserError

_log = logging.getLogger(__name__)
FILE = "controls.jsonl"
_KEY = "controls"  # in the state's table: rows so far, controls done


class Control(NamedTuple):
    """One line: serve this version from after so many rows of the stream on (late labels count)."""

    rows: int
    events: int
    version: int


class Versions(NamedTuple):
    """The versions of a model: that serves, those kept by number, and how each began to serve.

    waiting: what was asked for by hand, and is done at the next start; none of an old checkpoint.
    """

    serving: int
    kept: list[int]
    history: list[dict[str, Json]]
    waiting: list[Control]


class Runnable(Protocol):
    """A pipeline, or what stands for one."""

    def run(self, block: Block) -> Columns:
        """Answer and learn, row by row."""

    def state(self) -> State:
        """Everything needed to go on bit-identically."""

    def load(self, state: State) -> None:
        """Take over a state that `state` gave."""


class CanRollBack(Protocol):
    """What has versions."""

    def roll_back(self, version: int) -> None:
        """Serve that version from now on."""


class Controlled:
    """A pipeline that does at its rows what was asked for by hand.

    Args:
        pipeline: what runs. model: who rolls back. folder: where `controls.jsonl` is, or will be.
    Raises: UserError for a line that is none, or a version that is not kept.
    """

    def __init__(
        self, pipeline: Runnable, model: CanRollBack, folder: str | os.PathLike[str]
    ) -> None:
        self._pipeline, self._model, self._folder = pipeline, model, Path(folder)
        self._rows = self._done = 0
        self._ahead: list[Control] | None = None  # None: not read yet

    def __repr__(self) -> str:
        return repr(self._pipeline)

    @property
    def stages(self) -> tuple[Any, ...]:
        """Those of the pipeline, for who tells what its detectors stand at."""
        return tuple(getattr(self._pipeline, "stages", ()))

    @property
    def state_bytes(self) -> int | None:
        """Of the pipeline."""
        return getattr(self._pipeline, "state_bytes", None)

    def run(self, block: Block) -> Columns:
        """Answer and learn; a control that stands within the block is done between its rows."""
        parts: list[Columns] = []
        lengths: list[int] = []
        at = 0
        for control in self._due(block.n):
            stop = max(control.rows - self._rows, 0)
            if stop:
                self._part(block.rows(at, at + stop), parts, lengths)
                at += stop
            self._do(control)
        if at < block.n or not parts:
            self._part(block.rows(at, block.n), parts, lengths)
        return concatenate(parts, lengths)

    def _part(self, block: Block, parts: list[Columns], lengths: list[int]) -> None:
        parts.append(self._pipeline.run(block))
        lengths.append(block.n)
        self._rows += block.n

    def _due(self, n: int) -> list[Control]:
        """Those that come before the end of the next n rows, in their order."""
        if self._ahead is None:
            self._ahead = read(self._folder)[self._done :]
        return [control for control in self._ahead if control.rows < self._rows + n]

    def _do(self, control: Control) -> None:
        try:
            self._model.roll_back(control.version)
        except ValueError as error:
            raise UserError(f"{self._folder / FILE}: {error}") from None
        _log.info("version %d serves from here on, by hand", control.version)
        assert self._ahead is not None
        self._ahead = self._ahead[1:]
        self._done += 1

    def state(self) -> State:
        """The pipeline's, with the row and how many controls were done."""
        arrays, table = self._pipeline.state()
        return State(arrays, table | {_KEY: {"rows": self._rows, "done": self._done}})

    def load(self, state: State) -> None:
        """Take over a state that `state` gave."""
        self._pipeline.load(
            State(state.arrays, {k: v for k, v in state.table.items() if k != _KEY})
        )
        told = state.table.get(_KEY, {"rows": 0, "done": 0})
        self._rows, self._done, self._ahead = told["rows"], told["done"], None


def read(folder: Path) -> list[Control]:
    """The controls of a folder; none where there is no file.

    Raises: UserError for a line that is no control.
    """
    path = folder / FILE
    if not path.exists():
        return []
    found: list[Control] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            told = json.loads(line)
            found.append(Control(*(int(told[name]) for name in Control._fields)))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number}: is no control ({error}); put the file back"
            ) from None
    return found


def along(order: str | os.PathLike[str] | None) -> Path | None:
    """The folder with the controls of the run whose order is repeated; None where it has none.

    order: the folder of its checkpoints, or the order log in it.
    """
    if order is None:
        return None
    folder = Path(order) if Path(order).is_dir() else Path(order).parent
    return folder if (folder / FILE).exists() else None


def roll_back(folder: str | os.PathLike[str], version: int | None = None) -> Control:
    """Have the next run of these checkpoints serve a version that was replaced.

    version: the last one that was replaced if None.
    Raises: UserError while a run holds the checkpoints, or where nothing of the kind is kept.
    """
    place = Path(folder)
    with _store(place, describe(place)) as store:
        last = store.latest()
        assert last is not None
        versions = _versions(place, last)
        kept = [v for v in versions.kept if v != versions.serving]
        if not kept or version not in (None, *kept):
            named = ", ".join(map(str, kept)) or "none yet"
            raise UserError(f"--to: must be a version that is kept ({named}), got {version!r}")
        rows = int(last.pipeline.table.get(_KEY, {"rows": 0})["rows"])
        control = Control(rows, last.events, kept[-1] if version is None else version)
        if versions.waiting:
            raise UserError(
                f"{place}: version {versions.waiting[-1].version} is to serve from the next start "
                f"on; start the run before the next one is chosen"
            )
        _append(place / FILE, control)
    return control


def versions(folder: str | os.PathLike[str]) -> Versions:
    """The versions in the last checkpoint of a folder, or in a checkpoint; nothing is locked.

    Raises: UserError where there is no checkpoint, or no champion in it.
    """
    place = Path(folder)
    told = describe(place)
    path = Path(told["path"])
    found = _versions(path.parent, _store(path.parent, told).read(path))
    return found if place.is_dir() else found._replace(waiting=[])


def _store(folder: Path, told: dict[str, Json]) -> CheckpointStore:
    """The store of a folder, whose last checkpoint is described; no pickle in it is opened."""
    return CheckpointStore(folder, fingerprint=str(told.get("fingerprint")), allow_pickle=True)


def _versions(folder: Path, checkpoint: Checkpoint) -> Versions:
    tables = list(_with_versions(checkpoint.pipeline.table))
    if not tables:
        raise UserError(
            f"{folder}: has no versions; they are kept by ChampionClassifier and ChampionRegressor"
        )
    if len(tables) > 1:
        raise UserError(
            f"{folder}: has {len(tables)} champions; one can be rolled back, not several"
        )
    done = int(checkpoint.pipeline.table.get(_KEY, {"done": 0})["done"])
    (told,) = tables
    return Versions(told["version"], told["_kept"], told["versions_"], read(folder)[done:])


def _with_versions(table: Any) -> Any:
    """Every operator's table that has versions."""
    if not isinstance(table, dict):
        return
    if "versions_" in table and "_kept" in table:
        yield table
        return
    for member in table.values():
        yield from _with_versions(member)


def _append(path: Path, control: Control) -> None:
    """Add a line, durably."""
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(control._asdict()) + "\n")
        file.flush()
        os.fsync(file.fileno())
        sync_folder(path.parent)
