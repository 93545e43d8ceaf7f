"""Test-then-train inside a block: ask every row that learns, compare, hide what none asked."""

import numpy as np

from streamlearn.block import F8, LEARN, OBSERVE, PREDICT, Block, Columns, Csr, Logged
from streamlearn.jit.prequential import absolute_errors, log_losses, zero_one_errors
from streamlearn.operators._base import CLASSIFICATION, Operator


def asked(block: Block, needs_label: bool = True) -> Block:
    """The block with an answer asked from every row that learns; answering changes nothing.

    A stage that needs no label is not asked about a row that only brings one: it has no features.
    """
    if block.plain:
        return block
    silent = (block.mode & (PREDICT | LEARN)) == LEARN
    if not needs_label:
        silent &= (block.mode & OBSERVE) != 0
    if not silent.any():
        return block
    return block.replace(mode=np.where(silent, block.mode | PREDICT, block.mode).astype(np.uint8))


def hidden(outputs: Columns, block: Block) -> Columns:
    """Outputs with NaN, and empty sets, on the rows of the original block that did not ask."""
    if block.plain:
        return outputs
    silent = (block.mode & PREDICT) == 0
    if not silent.any():
        return outputs
    shown = dict(outputs)
    for name, column in outputs.items():
        number = column.dtype.kind == "f" and not name.startswith("log:")
        if number or name == "set":
            shown[name] = column.copy()
            shown[name][silent] = np.nan if number else 0
    return shown


def recalled(block: Block, logged: Logged, takes_nan: bool) -> Block:
    """The rows that were logged with the features of then, in today's width.

    A feature that did not exist then is missing where the stage takes NaN, else 0.
    """
    block = block.replace(logged=logged)
    if "sparse" in logged.columns:
        rows = np.flatnonzero(logged.held["sparse"])
        none = Csr(np.zeros(0), np.zeros(0, np.int64), np.zeros(block.n + 1, np.int64), 0)
        sparse = none if block.sparse is None else block.sparse
        block = block.replace(sparse=sparse.replaced(rows, list(logged.columns["sparse"][rows])))
    if "X" not in logged.columns:
        return block
    X, seen, there = block.X.copy(), logged.columns["X"], logged.held["X"]
    known = min(seen.shape[1], X.shape[1])  # beyond it, what was logged is fill
    X[there] = np.nan
    X[there, :known] = seen[there, :known]
    if not takes_nan:
        X[there] = np.nan_to_num(X[there], nan=0.0)
    return block.replace(X=X)


def met(block: Block, stage: Operator) -> Block:
    """Rows whose event was scored in this block, with the features of then. Copies X, if any."""
    if block.logged is None or block.logged.met is None:
        return block
    rows, scored = block.logged.met
    X, seen = block.X.copy(), stage.seen(block, scored)
    X[rows] = seen if stage.takes_nan else np.nan_to_num(seen, nan=0.0)
    if block.sparse is not None:
        order = np.arange(block.n)
        order[rows] = scored
        block = block.replace(sparse=block.sparse.take(order))
    return block.replace(X=X)


def errors(block: Block, outputs: Columns, task: str) -> F8:
    """Error of each learnt row, (n,): 0/1 for classes, |y - prediction| for numbers, else NaN.

    A delayed label is compared with the prediction that was logged when its event was scored.
    Several targets give the mean over them. Of an anomaly score, which no label judges, the score
    itself on rows that OBSERVE.
    """
    if "prediction" not in outputs:
        return np.where(block.mode & OBSERVE, outputs["score"], np.nan)
    prediction = outputs["prediction"]
    if block.logged is not None:
        prediction = _of_then(block.logged, prediction)
    if prediction.ndim == 2:
        parts = [
            _errors(block, np.ascontiguousarray(y), np.ascontiguousarray(p), task)
            for y, p in zip(block.y.T, prediction.T, strict=True)
        ]
        return np.asarray(np.mean(parts, axis=0))
    return _errors(block, block.y, prediction, task)


def signal(watches: str, block: Block, outputs: Columns, task: str) -> F8:
    """What a detector that `watches` this is fed, (n,), NaN where there is nothing.

    error: as `errors`. loss: log loss, or the squared error, of each learnt row. prediction: on
    rows that ask and OBSERVE the answer itself, of a classifier the probability of its answer.
    """
    if watches == "error" or "prediction" not in outputs:
        return errors(block, outputs, task)
    if watches == "prediction":
        fresh = (block.mode & OBSERVE) != 0
        said = _confidence(outputs) if task == CLASSIFICATION else outputs["prediction"]
        return np.where(fresh, said, np.nan)
    if task == CLASSIFICATION and "proba" in outputs:
        proba, prediction = outputs["proba"], outputs["prediction"]
        if block.logged is not None:
            proba = _of_then(block.logged, proba, "proba")
            prediction = _of_then(block.logged, prediction)
        out = np.empty(block.n)
        log_losses(block.y, np.ascontiguousarray(proba), block.weight, block.mode, out)
        out[np.isnan(prediction)] = np.nan  # nothing was answered: its probabilities say nothing
        return out
    wrong = errors(block, outputs, task)
    with np.errstate(over="ignore"):
        return wrong * wrong


def _confidence(outputs: Columns) -> F8:
    proba = outputs.get("proba")
    if proba is None or proba.shape[1] == 0:
        return np.full(outputs["prediction"].shape[0], np.nan)
    return np.asarray(proba.max(axis=1))


def _of_then(logged: Logged, said: F8, name: str = "prediction") -> F8:
    """An output, on rows that bring late labels what it was at scoring."""
    columns, held, met = logged
    if met is not None:
        said = said.copy()
        said[met.rows] = said[met.scored]
    if name not in columns:
        return said
    then, rows = columns[name], held[name]
    if said.ndim == 1:
        return np.where(rows, then, said)
    width = max(said.shape[1], then.shape[1])
    wide = np.zeros((said.shape[0], width))
    wide[:, : said.shape[1]] = said
    wide[rows] = 0.0
    wide[rows, : then.shape[1]] = then[rows]
    return wide


def _errors(block: Block, y: F8, prediction: F8, task: str) -> F8:
    out = np.empty(block.n)
    compare = zero_one_errors if task == CLASSIFICATION else absolute_errors
    compare(y, prediction, block.weight, block.mode, out)
    return out
