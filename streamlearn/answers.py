"""The answers to requests, by id: what was asked is asked once, however often it is asked.

`Answers` come from the engine's thread; the server's threads ask. What is remembered stands in a
journal of its own, which goes back to the last checkpoint as any output does.
"""

import hashlib
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamlearn.block import PREDICT, Vocabulary
from streamlearn.connectors.predictions import PredictionRows, Rows, listed_sets
from streamlearn.contracts import Answers, Json, Sink
from streamlearn.errors import UserError
from streamlearn.journal import Journal

_encoder = msgspec.json.Encoder(enc_hook=str)
_id_of = msgspec.json.Decoder(msgspec.defstruct("Id", [("id", int | str)])).decode
_DIGEST = 8  # bytes


class Waiting:
    """One request that waits for answers; in the thread of the server. left: how many."""

    def __init__(self, asked: Sequence["Asked"], done: Callable[[], None]) -> None:
        self.left, self._done = len(asked), done
        for one in asked:
            one.waiting.append(self)

    def told(self) -> None:
        """One of them is there, or will never be."""
        self.left -= 1
        if self.left == 0:
            self._done()


class Asked:
    """One event that was asked for. answer: JSON, once it is there. wrong: why it will not come.

    waiting: requests that wait for it.
    """

    __slots__ = ("answer", "digest", "id", "number", "waiting", "wrong")

    def __init__(self, id: Any, digest: bytes) -> None:
        self.id, self.digest = id, digest
        self.number = -1
        self.answer: bytes | None = None
        self.wrong = ""
        self.waiting: list[Waiting] = []

    @property
    def is_open(self) -> bool:
        """Whether there is something to wait for."""
        return self.answer is None and not self.wrong


def digest_of(text: bytes) -> bytes:
    """What tells two events of one id apart."""
    return hashlib.blake2b(text, digest_size=_DIGEST).digest()


class AnswerBook:
    """A sink that gives each answer to who asked, and remembers the last ones.

    Args:
        folder: of its journal. labels: classes known from the start. remember: answers that are
            known at least. keep: checkpoints that stay, to which it may have to go back.
    Cost: 5 us an answer.
    """

    guarantee = "each event is answered once; who asks again is given the same answer"

    def __init__(
        self, folder: Path, labels: Vocabulary | None, remember: int, keep: int = 3
    ) -> None:
        self._journal = Journal(folder)
        self._labels, self._remember = labels, remember
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, Asked] = OrderedDict()
        self._open: dict[int, Asked] = {}  # by number in the journal of requests
        self._unsaved: list[bytes] = []
        self._commits: deque[int] = deque(maxlen=keep + 1)
        self._rows = PredictionRows(labels)
        self.tell: Callable[[list[Asked]], None] = lambda asked: None  # in the engine's thread

    # -- asking, in any thread ---------------------------------------------------------------------

    def find(self, id: Any) -> Asked | None:
        """What is known of an id."""
        with self._lock:
            return self._known.get(id)

    def ask(self, asked: Asked) -> None:
        """An event that will be answered; its number is not known yet."""
        with self._lock:
            self._known[asked.id] = asked
            self._known.move_to_end(asked.id)

    def expect(self, number: int, asked: Asked) -> None:
        """Its number in the journal of requests, before the engine sees it."""
        asked.number = number
        with self._lock:
            self._open[number] = asked

    def known(self, number: int, id: Any, text: bytes) -> None:
        """An event of an earlier process, which is answered now."""
        asked = Asked(id, digest_of(text))
        self.ask(asked)
        self.expect(number, asked)

    def refused(self, number: int, reason: str) -> None:
        """A record does not fit any more: there will be no answer."""
        with self._lock:
            asked = self._open.pop(number, None)
        if asked is not None:
            self.forget(asked, f"event {asked.id!r}: {reason}")

    def forget(self, asked: Asked, why: str) -> None:
        """Nobody will answer it."""
        asked.wrong = why
        self.tell([asked])
        with self._lock:
            if self._known.get(asked.id) is asked:
                del self._known[asked.id]

    def abandon(self) -> None:
        """No further answer comes from this process."""
        with self._lock:
            left = [asked for asked in self._known.values() if asked.is_open]
        for asked in left:
            asked.wrong = "the server stops; ask again with the same id"
        self.tell(left)

    # -- a sink ------------------------------------------------------------------------------------

    def open(self, position: Json) -> None:
        """Go back to a commit; None forgets everything."""
        count, classes = (0, None) if position is None else (position["answers"], position["known"])
        self._rows = PredictionRows(self._labels)
        if classes is not None:
            self._rows.classes = classes
        self._unsaved, self._open = [], {}
        self._commits.clear()
        self._journal.open()
        self._journal.cut(count)
        found = [record for _, record in self._journal.read(self._first(count))]
        with self._lock:
            self._known.clear()
            for record in found:
                asked = Asked(_id_of(record[_DIGEST:]).id, record[:_DIGEST])  # type: ignore[attr-defined]
                asked.answer = record[_DIGEST:]
                self._known[asked.id] = asked
                self._known.move_to_end(asked.id)

    def _first(self, count: int) -> int:
        """The first answer that is remembered where there are so many."""
        return max(self._journal.first, count - self._remember)

    def write(self, answers: Answers) -> None:
        """Answer who asked."""
        rows = self._rows.take(answers)
        if not len(rows.row) or answers.origins is None:
            return
        texts = _texts(rows, _further(answers))
        done = []
        with self._lock:
            for number, text in zip(answers.origins.offset.tolist(), texts, strict=True):
                asked = self._open.pop(number, None)
                if asked is not None:
                    asked.answer = text
                    self._unsaved.append(asked.digest + text)
                    done.append(asked)
            self._shorten()
        self.tell(done)

    def _shorten(self) -> None:
        """Forget the oldest answers beyond those that are remembered; never what is open."""
        while len(self._known) > self._remember:
            id, asked = next(iter(self._known.items()))
            if asked.answer is None:
                return
            del self._known[id]

    def commit(self) -> Json:
        """Make the answers durable."""
        if self._unsaved:
            self._journal.append(self._unsaved)
            self._unsaved = []
        count = self._journal.next
        if len(self._commits) == self._commits.maxlen:  # all that stay are of this process
            self._journal.drop(self._first(self._commits[0]))
        self._commits.append(count)
        return {"answers": count, "known": self._rows.classes}

    def close(self) -> None:
        """Release the journal; may be called twice."""
        self._journal.close()


class Outputs:
    """The book and, where there is one, the sink that the configuration names, as one sink.

    That may come and go between two starts.
    Raises: UserError where the checkpoint is of a run without a book.
    """

    def __init__(self, book: AnswerBook, named: Sink | None) -> None:
        self._book, self._named = book, named
        self.guarantee = book.guarantee + ("" if named is None else f"; {named.guarantee}")

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned."""
        told = {"book": None, "named": None} if position is None else position
        if not isinstance(told, dict) or not {"book", "named"} <= set(told):
            raise UserError(
                "checkpoint: is of a run that did not serve; begin with a new checkpoint folder"
            )
        self._book.open(told["book"])
        if self._named is not None:
            self._named.open(told["named"])

    def write(self, answers: Answers) -> None:
        """Both take the answers."""
        self._book.write(answers)
        if self._named is not None:
            self._named.write(answers)

    def commit(self) -> Json:
        """Both positions."""
        named = None if self._named is None else self._named.commit()
        return {"book": self._book.commit(), "named": named}

    def close(self) -> None:
        """Close both."""
        self._book.close()
        if self._named is not None:
            self._named.close()


def _further(answers: Answers) -> dict[str, Any]:
    """Bounds of intervals, of the events, where the model gives them."""
    asked = (answers.block.mode & PREDICT) != 0
    return {
        name: answers.outputs[name][asked]
        for name in ("lower", "upper")
        if name in answers.outputs and answers.outputs[name].ndim == 1
    }


def _texts(rows: Rows, further: dict[str, Any]) -> list[bytes]:
    """Each answer as JSON."""
    n = len(rows.row)
    ids = [None] * n if rows.ids is None else rows.ids.tolist()
    values, proba = rows.prediction.tolist(), rows.proba
    more = {name: column.tolist() for name, column in further.items()}
    known = np.full(n, proba.shape[1]) if rows.known is None else rows.known
    names = None if rows.labels is None else [str(label) for label in rows.labels]
    sets = None if rows.sets is None else listed_sets(rows)
    texts = []
    for i in range(n):
        answer: dict[str, Json] = {"id": ids[i], "event": int(rows.row[i])}
        value = _number(values[i])
        if rows.labels is None or names is None:
            answer["prediction"] = value
        else:
            answer["prediction"] = None if value is None else rows.labels[int(value)]
            shares = proba[i, : known[i]].tolist()
            answer["probabilities"] = dict(zip(names, map(_number, shares), strict=False))
        if sets is not None:
            answer["set"] = sets[i]
        answer |= {name: _number(column[i]) for name, column in more.items()}
        texts.append(_encoder.encode(answer))
    return texts


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
