"""Pipelines: transformers, one predictor, detectors on its error; one block through all of them.

Each stage runs over a whole block before the next one. The block is cut where a stage's output
widens and, unless every stage recalls its input alone (`recalls_input`), where a label meets its
event inside the block; by the block law no cut changes a bit.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn.archive import read_archive, write_archive
from streamlearn.block import (
    EXPIRED,
    PREDICT,
    Block,
    Columns,
    Features,
    Logged,
    Vocabulary,
    concatenate,
)
from streamlearn.contracts import Shelf, State, merged
from streamlearn.errors import UserError
from streamlearn.event_log import EventLog, closings, cuts, keys_of, to_drop, to_log, to_recall
from streamlearn.operators import _findings, _prequential
from streamlearn.operators._base import (
    CLASSIFICATION,
    REGRESSION,
    Detector,
    Operator,
    Row,
)
from streamlearn.operators._members import keepers
from streamlearn.operators.foreign import as_stage
from streamlearn.recall import Meetings, meetings
from streamlearn.specification import rebuilt, specification
from streamlearn.spill import Spill

_Piece = tuple[Columns, int]  # outputs, and for how many rows


class Pipeline(Operator):
    """Stages in the order of the data flow: transformers, then one predictor, then detectors.

    A detector is fed the prequential error of the predictor (0/1 for classes, |y - prediction| for
    numbers, or an anomaly scorer's score) and adds the output `alarm`; it reports, and `Adaptive`
    acts. River and scikit-learn estimators may stand as stages; they run row by row.

    An event that is scored without its label is logged under its number (`Block.events`) or, where
    events have none, its id, with what every label-learning stage saw and said, until a LEARN row
    brings the label or an EXPIRED row says that none will come; set `expects_labels` to False where
    no labels come at all. Beyond 256 MiB, or what `spill_to` says, the log goes on in files.

    Args:
        stages: operators or estimators; their parameters are theirs.
    Raises: TypeError for a stage that is no operator, ValueError for an order that cannot be.
    Cost: the sum of its stages, and a few microseconds a block.
    """

    takes_categories = True

    def __init__(self, *stages: Any) -> None:
        self.stages: tuple[Operator, ...] = tuple(_flattened(stages))
        kinds = [_place(stage) for stage in self.stages]
        if kinds != sorted(kinds) or kinds.count(_PREDICTOR) > 1 or not kinds:
            order = ", ".join(type(stage).__name__ for stage in self.stages) or "nothing"
            raise ValueError(
                "Pipeline: stages must be transformers, then one predictor or none, "
                f"then detectors; got {order}"
            )
        if _DETECTOR in kinds and _PREDICTOR not in kinds:
            raise ValueError("Pipeline: a detector needs a predictor before it, to watch its error")
        self._transformers = self.stages[: kinds.count(_TRANSFORMER)]
        self._tail = self.stages[kinds.count(_TRANSFORMER) :]
        self.task = self._tail[0].task if self._tail else None
        self.takes_sparse = any(stage.takes_sparse for stage in self.stages)
        self.cheap_snapshot = all(stage.cheap_snapshot for stage in self.stages)
        self.needs_pickle = any(stage.needs_pickle for stage in self.stages)
        self.exact = bool(self._tail) and self._tail[0].exact
        self.takes_keys = any(stage.takes_keys for stage in self.stages)
        for ability in ("inflate", "hasten"):
            if self._tail and hasattr(self._tail[0], ability):
                setattr(self, ability, getattr(self._tail[0], ability))
        self.expects_labels = True
        self._pending = EventLog()
        self._frozen = False
        self._inner = False  # a member of another stage, whose log is that of the whole

    # -- what it is --------------------------------------------------------------------------------

    @property
    def predictor(self) -> Operator | None:
        """The stage that answers, or None in a pipeline of transformers."""
        return self._tail[0] if self._tail else None

    @property
    def features(self) -> Features | None:
        """The columns of X that it was trained with; None before the first event."""
        return self._features if len(self._features) else None

    @property
    def labels(self) -> Vocabulary | None:
        """The class table that it was trained with."""
        return self._labels

    @property
    def pending(self) -> int:
        """Events scored whose label has not come yet."""
        return len(self._pending)

    @property
    def names(self) -> list[str]:
        """A unique name for each stage: its place and its class."""
        return [f"{i}.{type(stage).__name__}" for i, stage in enumerate(self.stages)]

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.stages))})"

    __str__ = __repr__

    # -- running -----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        kept_outside = block.logged is not None or block.log_wanted  # an outer pipeline has the log
        if kept_outside or block.plain or not self.expects_labels:
            return self._flow(0, block)
        if self._frozen:
            return self._in_turn(0, block)
        k, at_once = self._learners()
        run = self._at_once if at_once and block.n > 1 else self._in_turn
        return _joined([(run(k, ready), ready.n) for ready in self._prepared(0, k, block)])

    def _learners(self) -> tuple[int, bool]:
        """Where stages begin to learn from labels; whether they can do so without a cut."""
        transformers = self._transformers
        labelled = (i for i, stage in enumerate(transformers) if stage.needs_label)
        k = next(labelled, len(transformers))
        uncut = all(s.recalls_input or not s.needs_label for s in self.stages[k:])
        return k, uncut and not any(map(_may_widen, transformers[k:]))

    def _prepared(self, k: int, stop: int, block: Block) -> Iterator[Block]:
        """A block after transformers k to stop, in pieces of one width: each runs before the next.

        By the block law, and as these learn from no label, they may run ahead of those that do.
        """
        if k == stop:
            yield block
            return
        for piece in self.stages[k].pieces(block):
            yield from self._prepared(k + 1, stop, self._transformed(k, piece)[0])

    def _in_turn(self, k: int, block: Block) -> Columns:
        """From the k-th stage on, in pieces in which no label meets its own event."""
        pieces = [block] if block.n == 1 else _cut(block, cuts(block, self._pending.room))
        return _joined([(self._remembered(k, piece), piece.n) for piece in pieces])

    def _at_once(self, k: int, block: Block) -> Columns:
        """From the k-th stage on, uncut: late labels find what was seen in the block itself."""
        done: list[_Piece] = []
        for piece in _cut(block, closings(to_log(block), self._pending.room)):
            found, keys = meetings(piece), keys_of(piece)
            again = (
                found is not None
                and keys is not None
                and (not found.once or self._pending.knows_any(keys[found.settled]))
            )  # an event whose key is used again
            run = self._in_turn(k, piece) if again else self._remembered(k, piece, found)
            done.append((run, piece.n))
        return _joined(done)

    def _remembered(self, k: int, block: Block, found: Meetings | None = None) -> Columns:
        """Run a block from the k-th stage on: recall before, log after.

        found: all labels that meet their own event in the block; it was cut where not given.
        """
        keys, logged, settled = keys_of(block), to_log(block), None
        block, kept = self._recalled(block, found), logged
        if found is not None:
            settled, kept = found.settled, logged & ~found.settled
        wanted = bool(kept.any())
        outputs = self._flow(k, block.replace(log_wanted=True) if wanted else block)
        if wanted or logged.any():
            assert keys is not None
            logs = {name[4:]: c for name, c in outputs.items() if name.startswith("log:")}
            self._pending.put(keys, logged, logs, settled)
        return {name: c for name, c in outputs.items() if not name.startswith("log:")}

    def _recalled(self, block: Block, found: Meetings | None) -> Block:
        """The block with what was logged for its late labels; what expires is dropped."""
        keys, recalled, dropped = keys_of(block), to_recall(block), to_drop(block)
        met = None if found is None else found.met
        if found is not None:
            recalled, dropped = recalled & ~found.settling, dropped & ~found.settling
        if recalled.any():  # with those to be dropped, in their order: the first of two counts
            taken = self._pending.take(keys, recalled | dropped)
            held = {name: rows & recalled for name, rows in taken.held.items()}
            if block.events is not None:  # a row without features: of an unknown event, no lesson
                known = np.logical_or.reduce([*held.values(), ~recalled])
                block = block.replace(mode=np.where(known, block.mode, np.uint8(EXPIRED)))
            return block.replace(logged=Logged(taken.columns, held, met))
        if dropped.any():
            self._pending.drop(keys, dropped)
        return block if met is None else block.replace(logged=Logged({}, {}, met))

    def _flow(self, k: int, block: Block) -> Columns:
        """A block through the stages from the k-th on."""
        if self._frozen:
            block = block.replace(mode=block.mode & PREDICT)
        done: list[_Piece] = []
        self._advance(k, block, {}, done)
        return _joined(done)

    def _advance(self, k: int, block: Block, logs: Columns, done: list[_Piece]) -> None:
        """Transformers from the k-th on, then the tail; a piece of one width goes all the way."""
        while k < len(self._transformers):
            stage = self._transformers[k]
            if stage.may_widen(block.features):
                at = 0
                for piece in stage.pieces(block):
                    cut = {name: column[at : at + piece.n] for name, column in logs.items()}
                    ready, more = self._transformed(k, piece)
                    self._advance(k + 1, ready, cut | more, done)
                    at += piece.n
                return
            block, more = self._transformed(k, block)
            if more:
                logs = logs | more
            k += 1
        done.append((self._answered(block, logs), block.n))

    def _transformed(self, k: int, block: Block) -> tuple[Block, Columns]:
        """A block after the k-th transformer, and what that one wants to have logged."""
        stage = self._transformers[k]
        out = self._run_stage(k, block)
        features = stage.output_features(block.features)
        done = block.with_X(out["X"], features, keep_sparse=not stage.takes_sparse)
        if "alarm" in out:  # raised or not: so that the outputs of all blocks have the column
            found = out["why"] if "why" in out else np.full(block.n, None, dtype=object)
            done = done.replace(raised=_findings.joined(block.raised, found))
        if not block.log_wanted:
            return done, {}
        return done, {name: column for name, column in out.items() if name.startswith("log:")}

    def _answered(self, block: Block, logs: Columns) -> Columns:
        """Predictor and detectors over a block of transformed features."""
        if not self._tail:
            return _findings.added({"X": block.X, **logs}, block.raised)
        _refuse_sparse(block, self._tail[0])
        k = len(self._transformers)
        detectors = self._tail[1:]
        asked = _prequential.asked(block, self._tail[0].needs_label) if detectors else block
        outputs = self._run_stage(k, asked)
        outputs = _findings.added(outputs, block.raised)
        if not detectors:
            return {**outputs, **logs} if logs else outputs
        logged = block.logged if self._tail[0].needs_label else None
        if asked.logged is not None:
            asked = asked.replace(logged=logged and logged.under(f"{k}/"))
        for detector in detectors:
            assert isinstance(detector, Detector)  # the constructor saw to it
            values = _prequential.signal(detector.watches, asked, outputs, str(self.task))
            outputs = _findings.raised(outputs, block.n, detector.alarms(values))
        outputs = _prequential.hidden(outputs, block)
        return {**outputs, **logs} if logs else outputs

    def _run_stage(self, k: int, block: Block) -> Columns:
        """One stage over a block; a label-learning one gets its log back, and adds to it."""
        stage = self.stages[k]
        if not stage.needs_label:
            return stage.run(block)
        if block.logged is not None:
            logged = block.logged.under(f"{k}/")
            block = _prequential.recalled(block, logged, stage.takes_nan)
            block = _prequential.met(block, stage)
        outputs = stage.run(block)
        if not block.log_wanted:
            return outputs
        inner = {name: column for name, column in outputs.items() if name.startswith("log:")}
        plain = {name: column for name, column in outputs.items() if not name.startswith("log:")}
        logs = {f"log:{k}/{name[4:]}": column for name, column in inner.items()}
        logs.setdefault(f"log:{k}/X", block.X)  # a stage that fills gaps says what it saw
        if block.sparse is not None and stage.takes_sparse:
            logs[f"log:{k}/sparse"] = block.sparse.packed()
        said = {f"log:{k}/{name}": c for name, c in plain.items() if name not in _findings.RAISED}
        return plain | said | logs  # of a transformer, X in and X out: it learns on what came in

    def load_kernels(self) -> None:
        """Load what its stages reach only later."""
        for stage in self.stages:
            stage.load_kernels()

    def roll_back(self, version: int) -> None:
        """Have its champion serve a version that was replaced, from the next row on.

        Raises: ValueError where nobody in it has versions, or several, or that one is not kept.
        """
        champions = list(keepers(self))
        if len(champions) != 1:
            raise ValueError(
                f"Pipeline: one model must have versions to roll back to, got {len(champions)}; "
                f"ChampionClassifier and ChampionRegressor keep them"
            )
        champions[0].roll_back(version)

    # -- dicts -------------------------------------------------------------------------------------

    def predict_one(self, x: Row) -> Any:
        """The answer for one event, given as a dict: a class (None before any), or a number."""
        self._refuse_unless("predict_one", CLASSIFICATION, REGRESSION)
        return self._class_of(x) if self.task == CLASSIFICATION else self._number_of(x)

    def predict_proba_one(self, x: Row) -> dict[Any, float]:
        """Probability of each known class; empty before any class is known."""
        self._refuse_unless("predict_proba_one", CLASSIFICATION)
        return self._probabilities_of(x)

    def transform_one(self, x: Row) -> Row:
        """The transformed features of one event, in a pipeline of transformers."""
        self._refuse_unless("transform_one", None)
        return self._features_of(x)

    def _refuse_unless(self, method: str, *tasks: str | None) -> None:
        if self.task not in tasks:
            wanted = " or ".join(str(task or "transformation") for task in tasks)
            raise ValueError(
                f"Pipeline: the last stage must do {wanted} for {method}, got {self.stages[-1]!r}"
            )

    def output_features(self, features: Features) -> Features:
        """The columns after the last transformer."""
        for stage in self._transformers:
            features = stage.output_features(features)
        return features

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Snapshots of all stages, and the pending events."""
        named = {"_features": self._features, "_labels": self._labels}
        stages = [stage.snapshot() for stage in self.stages]
        return named | {"stages": stages, "pending": self._pending.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        self._features, self._labels = snapshot["_features"], snapshot["_labels"]
        for stage, taken in zip(self.stages, snapshot["stages"], strict=True):
            stage.restore(taken)
        self._pending.restore(snapshot["pending"])

    def state(self) -> State:
        """The states of all stages under their names, the tables, and the pending events.

        Of these, the ones that are spilled to a folder of checkpoints stay there, and are named.
        """
        return self._state(whole=self._inner)

    def kept_state(self) -> State:
        """As a member of a wrapper: what stands in a checkpoint, less what lies on its shelf."""
        return self._state(whole=False)

    def _state(self, whole: bool) -> State:
        states = (s.state() if whole else s.kept_state() for s in self.stages)
        members = dict(zip(self.names, states, strict=True))
        table = super().state().table | {"frozen": self._frozen}
        return merged(members | {"pending": self._pending.state(whole)}, table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; the pipeline must have the same stages.

        Raises: DamagedError where pending events are in a file that is missing or damaged.
        """
        super().load(state)
        for name, stage in zip(self.names, self.stages, strict=True):
            stage.load(state.under(name))
        self._pending.load(state.under("pending"))
        self._frozen = state.table["frozen"]

    def reset(self) -> None:
        """Forget everything learnt; names of features and classes, and pending events, stay."""
        for stage in self.stages:
            stage.reset()

    def clone(self, *_: Any, **__: Any) -> "Pipeline":
        """A fresh pipeline with clones of the same stages."""
        return Pipeline(*(stage.clone() for stage in self.stages))

    @property
    def state_bytes(self) -> int:
        """Bytes of all stages' arrays."""
        return sum(stage.state_bytes for stage in self.stages)

    def freeze(self) -> "Pipeline":
        """Score from now on without learning, the normaliser included; returns the pipeline.

        Events are still logged; labels that come before `unfreeze` are dropped, later ones learnt.
        """
        self._frozen = True
        return self

    def unfreeze(self) -> "Pipeline":
        """Learn again; returns the pipeline."""
        self._frozen = False
        return self

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Keep at most so many bytes of pending events in memory, the older ones in this folder.

        Banks keep there what they evict, and records that no checkpoint has to hold.
        """
        self._pending.spill_to(spill, memory)
        for stage in self.stages:
            stage.shelve(spill)

    def shelve(self, shelf: Shelf) -> None:
        """As a member of a wrapper: its banks keep their records there, and `state` is whole."""
        self._inner = True
        for stage in self.stages:
            stage.shelve(shelf)

    def save(self, path: str | Path, *, allow_pickle: bool = False) -> None:
        """Write parameters and state into one file, atomically; `load` reads it. No pickle.

        Raises: UserError for a foreign stage, whose state is a pickle, unless allow_pickle is true.
        """
        if self.needs_pickle and not allow_pickle:
            raise UserError(
                f"{path}: the state of a River or scikit-learn stage is a pickle; "
                "save and load with allow_pickle=True if you trust the file"
            )
        state = self._state(whole=True)
        table = {"what": "pipeline", "stages": [specification(s) for s in self.stages]}
        write_archive(Path(path), state.arrays, table | {"state": state.table})


def load(
    path: str | Path, *, operators: Sequence[type[Operator]] = (), allow_pickle: bool = False
) -> Pipeline:
    """A pipeline that `Pipeline.save` wrote, ready to go on with the next event.

    Args:
        path: the file.
        operators: classes of your own that stand in it; the file names classes, it never imports.
        allow_pickle: needed for a file with a River or scikit-learn stage; unpickling runs code.
    Raises: UserError for a file that is damaged, of a newer format, no pipeline, or names a class
        that is not known.
    """
    arrays, table = read_archive(Path(path))
    if table.get("what") != "pipeline":
        raise UserError(
            f"{path}: must be a file that Pipeline.save wrote, got {table.get('what')!r}"
        )
    known = (*operators, Pipeline)  # which may stand in a wrapper
    pipeline = Pipeline(*(rebuilt(spec, known) for spec in table["stages"]))
    if pipeline.needs_pickle and not allow_pickle:
        raise UserError(
            f"{path}: holds a pickle; load with allow_pickle=True if you trust the file"
        )
    pipeline.load(State(arrays, table["state"]))
    return pipeline


def _flattened(stages: Sequence[Any]) -> Iterator[Operator]:
    """Stages as operators; a pipeline of transformers is as good as its stages, if not frozen."""
    for given in stages:
        if isinstance(given, Pipeline) and given.predictor is None and not given._frozen:
            yield from given.stages
        else:
            yield as_stage(given)


_TRANSFORMER, _PREDICTOR, _DETECTOR = range(3)


def _may_widen(stage: Operator) -> bool:
    """Whether a transformer may cut a block, where its output gets wider."""
    return type(stage).pieces is not Operator.pieces


def _cut(block: Block, ends: list[int]) -> list[Block]:
    """The rows up to each end, and those after the last."""
    places = [at for at in ends if at < block.n]
    return [block.rows(a, b) for a, b in pairwise([0, *places, block.n])]


def _joined(done: list[_Piece]) -> Columns:
    """The outputs of consecutive pieces as one."""
    if len(done) == 1:
        return done[0][0]
    return concatenate([outputs for outputs, _ in done], [n for _, n in done])


def _place(stage: Operator) -> int:
    if isinstance(stage, Detector):
        return _DETECTOR
    return _PREDICTOR if stage.task is not None else _TRANSFORMER


def _refuse_sparse(block: Block, stage: Operator) -> None:
    if block.sparse is not None and not stage.takes_sparse:
        raise ValueError(
            f"{type(stage).__name__}: takes no sparse features (hashed text, bags of words); "
            "put Densifier() before it"
        )
