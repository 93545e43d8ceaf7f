"""The options of a client library that a connection hands on: checked, and never printed."""

import difflib
from collections.abc import Collection, Mapping

from streamlearn.connectors.kafka.secrets import Secrets
from streamlearn.errors import UserError


def chosen(
    client: str, options: Mapping[str, object], known: Collection[str], ours: Collection[str]
) -> dict[str, object]:
    """The options with their secrets in place.

    known: the names that the library takes. ours: those that the connector sets.
    Raises: UserError for an option that is unknown or ours, a secret that cannot be read.
    """
    for name in options:
        if name in ours:
            raise UserError(f"options.{name}: is set by streamlearn; leave it out")
        if name not in known:
            like = difflib.get_close_matches(name, sorted(set(known) - set(ours)), 1)
            hint = f"; did you mean {like[0]}?" if like else ""
            raise UserError(f"options.{name}: {client} has no such option{hint}")
    return Secrets(options).options
