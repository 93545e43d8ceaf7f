"""The checkpoint store: everything a run needs to go on, saved as one atomic unit.

A folder holds the last few checkpoints as `checkpoint-<number>.safetensors` (see archive.py) and a
`lock`: one writer at a time, and a writer that lost the folder to a later one is refused.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from streamlearn.archive import DamagedError, read_archive, write_archive
from streamlearn.contracts import Json, Positions, State, merged
from streamlearn.durable import disk_errors
from streamlearn.errors import UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger(__name__)
_NAME = re.compile(r"checkpoint-(\d{10})\.safetensors")
_MEMBERS = ("pipeline", "evaluation", "schema", "labels")
_POSITIONS = ("events", "sources", "sinks", "counters", "about")
_SHOWN = ("what", "fingerprint", *_POSITIONS, "stages")


class BusyError(UserError):
    """Another run holds the lock of a checkpoint folder."""


class Checkpoint(NamedTuple):
    """One atomic unit: what was learnt, and where every source and sink stood at that moment.

    events: events of the stream that were processed. pipeline: its state, pending labels included.
    sources, sinks: positions by name. evaluation, schema: their states, where the run has them.
    labels: of a source whose labels come late.
    counters: what the engine counts. about: for people (the pipeline's repr, the metrics).

    An array `pickle` (or `…/pickle`, uint8) of the pipeline is the pickle of a foreign stage,
    a part of its own in the file, written and handed out only with `allow_pickle`.
    """

    events: int
    pipeline: State
    sources: Positions
    sinks: dict[str, Json]
    evaluation: State | None = None
    schema: State | None = None
    labels: State | None = None
    counters: dict[str, Json] = {}  # noqa: RUF012  # never written into
    about: dict[str, Json] = {}  # noqa: RUF012  # never written into


class CheckpointStore:
    """A folder with the last few checkpoints of one pipeline.

    `with CheckpointStore(path) as store:` takes the lock; `save` and `latest` need it.

    Args:
        path: the folder; it is made when it is not there, readable by its owner only.
        keep: how many checkpoints stay, >= 1; with 1 a damaged one has none before it.
        fingerprint: names the pipeline (a digest of its configuration); checkpoints of another are
            refused.
        allow_pickle: write and read the states of foreign River stages. Unpickling runs code, so
            allow it only for checkpoints that nobody else could write.

    Raises:
        UserError: the folder is in use by another run, belongs to another pipeline, cannot be
            written, is full, or holds nothing but damaged checkpoints.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keep: int = 3,
        *,
        fingerprint: str = "",
        allow_pickle: bool = False,
    ) -> None:
        if keep < 1:
            raise UserError(f"CheckpointStore: keep must be >= 1, got {keep!r}")
        self.path = Path(path)
        self.keep, self.fingerprint, self.allow_pickle = keep, fingerprint, allow_pickle
        self._lock: _Lock | None = None
        self._pinned: int | None = None

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _Lock(self.path)
            for stale in self.path.glob(".checkpoint-*.tmp"):  # of a writer that was killed
                stale.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; may be called twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def check(self) -> None:
        """Refuse to go on where a later run has taken the folder. Cost: reads one small file."""
        self._held().check()

    def save(self, checkpoint: Checkpoint) -> int:
        """Write one checkpoint durably, whole or not at all, and say its number.

        Those before the last `keep` are dropped, but never the one that is pinned.
        """
        self.check()
        files = _files(self.path)
        number = 1 + max([self._pinned or 0, *map(_number, files[-1:])])
        whole = self._whole(checkpoint)
        write_archive(self.file_of(number), whole.arrays, whole.table)
        for old in files[: max(0, len(files) + 1 - self.keep)]:
            if _number(old) != self._pinned:
                with contextlib.suppress(OSError):
                    old.unlink()
        return number

    def file_of(self, number: int) -> Path:
        """The file of a checkpoint."""
        return self.path / f"checkpoint-{number:010d}.safetensors"

    def pin(self, number: int) -> None:
        """Keep this one, and no longer the one before, until another is pinned."""
        self._pinned = number

    def latest(self) -> Checkpoint | None:
        """The last checkpoint that is whole, or None in a folder without any.

        A damaged one is passed over with a warning in the log; the run then repeats what came after
        the one before it.
        """
        return self.last(lambda checkpoint: None)

    def last(self, use: Callable[[Checkpoint], None], at: int | None = None) -> Checkpoint | None:
        """The last checkpoint that is whole and that `use` can take, or None in an empty folder.

        use: called with one after the other, the last first, until it raises no DamagedError: what
        a checkpoint names may lie in files of its own (spilled events). at: number of the one that
        counts; it is pinned, and those after it are dropped: what they hold never left.
        """
        self._held()
        files = _files(self.path)
        if at is not None:
            files = self._up_to(at, files)
        for path in reversed(files):
            try:
                checkpoint = self.read(path)
                use(checkpoint)
            except DamagedError as error:
                _log.warning("%s; going back to the checkpoint before it", error)
            else:
                return checkpoint
        if files:
            raise UserError(
                f"{self.path}: all {len(files)} checkpoints are damaged; "
                f"delete the folder to begin anew"
            )
        return None

    def _up_to(self, at: int, files: list[Path]) -> list[Path]:
        """Those of these files that count where checkpoint `at` is the last that does."""
        kept = [path for path in files if _number(path) <= at]
        if not kept:
            raise UserError(
                f"{self.path}: checkpoint {at}, which the broker's offsets name, is not there, nor "
                f"one before it; put back the folder, or begin anew under another group"
            )
        if _number(kept[-1]) != at:
            text = "%s: checkpoint %d, which the broker's offsets name, is gone; going back to %d"
            _log.warning(text, self.path, at, _number(kept[-1]))
        for path in files[len(kept) :]:
            _log.warning("%s: the outputs before it were not committed; it is dropped", path)
            path.unlink()
        self.pin(at)
        return kept

    def _held(self) -> "_Lock":
        if self._lock is None:
            raise RuntimeError("CheckpointStore: enter the store (`with store:`) before using it")
        return self._lock

    def _whole(self, checkpoint: Checkpoint) -> State:
        """A checkpoint as arrays and one table."""
        members = {name: getattr(checkpoint, name) for name in _MEMBERS}
        present = {name: state for name, state in members.items() if state is not None}
        table = {
            "what": "checkpoint",
            "fingerprint": self.fingerprint,
            "members": list(present),
        }
        rest = {name: getattr(checkpoint, name) for name in _POSITIONS}
        whole = merged(present, table | rest)
        if _pickles(whole.arrays) and not self.allow_pickle:
            raise UserError(
                f"{self.path}: a River stage can only be saved as a pickle; set allow_pickle: true "
                f"to allow it, or use an operator of streamlearn"
            )
        return whole

    def read(self, path: Path) -> Checkpoint:
        """One file as the checkpoint that was saved. Raises: UserError; DamagedError."""
        whole = State(*read_archive(path))
        table = whole.table
        if table.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{path}: belongs to another pipeline (fingerprint {table.get('fingerprint')!r}, "
                f"this one has {self.fingerprint!r}); give each pipeline its own folder, "
                f"or delete this one to begin anew"
            )
        if _pickles(whole.arrays) and not self.allow_pickle:
            raise UserError(
                f"{path}: holds the pickled state of a River stage; set allow_pickle: true to load "
                f"it, if nobody else could write this file"
            )
        states = {name: whole.under(name) for name in table["members"]}
        return Checkpoint(
            table["events"],
            states["pipeline"],
            table["sources"],
            table["sinks"],
            states.get("evaluation"),
            states.get("schema"),
            states.get("labels"),
            table["counters"],
            table["about"],
        )


def describe(path: str | os.PathLike[str]) -> dict[str, Json]:
    """What a checkpoint or a saved pipeline holds, for people: the file, or the last in a folder.

    Keys: path, bytes, arrays (name, dtype, shape and bytes of each) and what (`checkpoint` or
    `pipeline`); of a checkpoint also fingerprint, events, sources, sinks, counters and about; of a
    pipeline its stages. Raises UserError where there is no such file, or it is damaged.
    """
    place = Path(path)
    if place.is_dir():
        files = _files(place)
        if not files:
            raise UserError(f"{place}: holds no checkpoint; give the checkpoint folder of a run")
        place = files[-1]
    arrays, table = read_archive(place)
    about = {name: table[name] for name in _SHOWN if name in table}
    listed = [
        {"name": name, "dtype": str(a.dtype), "shape": list(a.shape), "bytes": a.nbytes}
        for name, a in arrays.items()
    ]
    return {"path": str(place), "bytes": place.stat().st_size, **about, "arrays": listed}


def _pickles(names: Iterable[str]) -> list[str]:
    """The arrays that are pickles of foreign stages."""
    return [name for name in names if name.rpartition("/")[2] == "pickle"]


def _files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


class _Lock:
    """One writer: a lock of the system, and an epoch for file systems whose locks do not hold."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise BusyError(
                f"{folder}: another run is using these checkpoints; stop it first, "
                f"or give this run a folder of its own"
            ) from error
        found = os.read(self._descriptor, 20)
        self._epoch = b"%019d\n" % (int(found or 0) + 1)
        os.pwrite(self._descriptor, self._epoch, 0)
        os.fsync(self._descriptor)

    def check(self) -> None:
        """Refuse to go on where a later run has taken the folder."""
        with disk_errors(self.path):
            same_file = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
            still_ours = same_file and self.path.read_bytes() == self._epoch
        if not still_ours:
            raise UserError(
                f"{self.path.parent}: another run took these checkpoints; this one stops, "
                f"start it again when the other has ended"
            )

    def release(self) -> None:
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    """Lock a file for this process, or raise OSError at once; the system unlocks it at the end."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
