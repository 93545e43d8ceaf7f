"""What of a bank lies on a shelf for its checkpoints: all, then what changed; not exported."""

import weakref

import numpy as np

from streamlearn.block import F8, I8, Columns
from streamlearn.contracts import Shelf
from streamlearn.jit import bank
from streamlearn.operators._layout import Layout, relaid
from streamlearn.operators._records import Records

_MOST = 32  # files, beyond which all is written anew


class Saved:
    """Files of records: the first holds all keys, each further one those that changed since.

    columns of a file: keys (m,), records (m, stride), layout (2,), and gone (k,), keys that were
    evicted since the file before. Together they hold at most twice the records of the bank: then
    all is written anew.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.names: list[str] = []
        self._rows = 0  # in all files
        self._count = 0.0  # events of the bank when the last one was written
        self._of: tuple[int, Layout] | None = None  # the history and the layout that they are of
        weakref.finalize(self, _released, shelf, self.names).atexit = False

    def write(self, records: Records) -> list[str]:
        """Names of files that hold the bank as it is; writes what no file holds."""
        known = self._of == (records.history, records.layout)
        if known and records.idle:
            return list(self.names)
        keys, rows = records.changed(self._count) if known else records.whole(records.layout)
        fits = self._rows + len(keys) <= 2 * records.n_keys and len(self.names) < _MOST
        if known and not fits:
            keys, rows = records.whole(records.layout)
        if not known or not fits:
            self._release()
        left = records.left or [] if self.names else []
        gone = np.concatenate([np.zeros(0, np.int64), *left])
        if len(keys) or len(gone) or not self.names:
            layout = np.array(records.layout[:2])
            columns: Columns = {"keys": keys, "records": rows, "layout": layout, "gone": gone}
            self.names.append(self._shelf.write(columns)[0])
            self._rows += len(keys)
        self._stand(records)
        return list(self.names)

    def _stand(self, records: Records) -> None:
        """The files hold the bank as it is now."""
        records.begin_history()
        self._count = float(records.counters[bank.COUNT])
        self._of = records.history, records.layout

    def _release(self) -> None:
        """Hold the files no longer."""
        _released(self._shelf, self.names)
        self._rows = 0

    def open(self, names: list[str], layout: Layout) -> tuple[I8, F8]:
        """Keys and records of these files, in this layout; `loaded` is to follow."""
        self._release()
        files = []
        for name in names:
            files.append(self._shelf.open(name)[1])
            self.names.append(name)
        keys, file, row = (np.zeros(0, dtype=np.int64) for _ in range(3))
        for i, columns in enumerate(files):
            gone, own = columns["gone"], columns["keys"]
            self._rows += len(own)
            keys = np.concatenate([keys, gone, own])
            file = np.concatenate([file, np.full(len(gone), -1), np.full(len(own), i)])
            row = np.concatenate([row, np.zeros(len(gone), np.int64), np.arange(len(own))])
        found, last = np.unique(keys[::-1], return_index=True)  # what was said last of each key
        file, row = file[::-1][last], row[::-1][last]
        out = np.empty((len(found), layout.stride))
        for i, columns in enumerate(files):
            d, K = columns["layout"].tolist()
            then = layout._replace(d=d, K=K)
            out[file == i] = relaid(columns["records"][row[file == i]], then, layout)
        return found[file >= 0], out[file >= 0]

    def loaded(self, records: Records) -> None:
        """The bank has taken over what `open` gave."""
        self._stand(records)


def _released(shelf: Shelf, names: list[str]) -> None:
    while names:
        shelf.release(names.pop())
