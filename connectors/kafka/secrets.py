"""Secrets in the options of a client: `${env:NAME}` and `${file:PATH}`, read when it is made.

What was read shows as '***' wherever a library or a traceback prints options. A file that changes
is looked at every 10 s (`Secrets.changed`); the client is then made again.
"""

import os
import re
import time
from collections.abc import Callable, Mapping

from streamlearn.errors import UserError

_PLACE = re.compile(r"\$\{(env|file):([^}]*)\}")
LOOK_SECONDS = 10.0


class Hidden(str):
    """A text that does not show in a repr, nor in that of what holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Three stars."""
        return "'***'"


class Secrets:
    """The options of a connection with their secrets in place.

    Args:
        options: of a client; their texts may hold ${env:NAME} and ${file:PATH}.
        clock: seconds, monotonic. owner: of the options, for messages.
    Raises: UserError, which names the option, for a variable that is not set, a file that cannot be
        read. Cost of `changed`: a comparison; every 10 s one `stat` a file.
    """

    def __init__(
        self,
        options: Mapping[str, object],
        clock: Callable[[], float] = time.monotonic,
        owner: str = "options",
    ) -> None:
        self._files: dict[str, int] = {}  # path -> its mtime in ns when it was read
        self._clock, self._owner = clock, owner
        self._looked = clock()
        self.options = {name: self._resolved(name, value) for name, value in options.items()}

    def _resolved(self, name: str, value: object) -> object:
        if not isinstance(value, str) or not _PLACE.search(value):
            return value
        return Hidden(_PLACE.sub(lambda found: self._read(name, found[1], found[2]), value))

    def _read(self, name: str, kind: str, place: str) -> str:
        if kind == "env":
            if place not in os.environ:
                raise UserError(
                    f"{self._owner}.{name}: the environment variable {place} is not set"
                )
            return os.environ[place]
        try:
            self._files[place] = os.stat(place).st_mtime_ns
            with open(place, encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is not UTF-8 text"
            raise UserError(f"{self._owner}.{name}: cannot read {place}: {why}") from None

    def changed(self) -> bool:
        """Whether a file was written since it was read; looks every 10 s at most.

        False while a file is away: one that is replaced may be missing for a moment.
        """
        if not self._files or self._clock() - self._looked < LOOK_SECONDS:
            return False
        self._looked = self._clock()
        return any(_written(path) not in (then, None) for path, then in self._files.items())


def _written(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
