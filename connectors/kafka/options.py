"""The options of a client library that a connection hands on: checked, and never printed."""

import difflib
from collections.abc import Collection, Mapping

from streamlearn.connectors.kafka.secrets import Hidden, Secrets
from streamlearn.errors import UserError


class Options:
    """The options of a connection, checked, with their secrets in place.

    Args:
        given: options under the library's own names.
        ours: names that the connector sets.
        known: all names that the library takes; None where only the library can tell.
    Raises: UserError for an option that is unknown or ours, a secret that cannot be read.
    """

    def __init__(
        self,
        given: Mapping[str, object],
        ours: Collection[str],
        known: Collection[str] | None = None,
    ) -> None:
        for name in given:
            if name in ours:
                raise UserError(f"options.{name}: is set by streamlearn; leave it out")
            if known is not None and name not in known:
                raise UserError(f"options.{name}: {_unknown(name, set(known) - set(ours))}")
        self._secrets = Secrets(given)
        self.values = self._secrets.options

    def changed(self) -> bool:
        """Whether a secret's file was written since it was read; looks every 10 s at most."""
        return self._secrets.changed()

    def masked(self, text: str) -> str:
        """A text without the secrets that it may quote."""
        for value in self.values.values():
            if isinstance(value, Hidden) and value:
                text = text.replace(value, "***")
        return text


def _unknown(name: str, known: Collection[str]) -> str:
    like = difflib.get_close_matches(name.replace(".", "_"), sorted(known), 1)
    return "kafka-python has no such option" + (f"; did you mean {like[0]}?" if like else "")
