"""A Confluent schema registry: schemas by the number that messages begin with.

Nobody waits for HTTP here: what is not known yet is asked for in a thread. A registry that does not
answer is asked again, without end; a number that it does not know is asked for three times in all,
a second apart (registries copy each other with a delay), and stays unknown until the next start.
"""

import importlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
)

from streamlearn.connectors.kafka.schemas import Registered
from streamlearn.connectors.kafka.secrets import Secrets
from streamlearn.errors import UserError

PATIENCE = (1.0, 1.0)  # seconds before a number that is not known is asked for again
BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0)  # seconds before a registry that is away is; the last repeats
AT_ONCE = 8  # questions that are open at a time
DEFAULTS = {"timeout": 5.0, "max.retries": 0}  # repeating is done here
_log = logging.getLogger(__name__)


def _errors_of_http() -> tuple[type[Exception], ...]:
    """What the HTTP client under the registry's raises: versions of it differ in which that is."""
    found: list[type[Exception]] = [OSError]
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).HTTPError)
        except ModuleNotFoundError:
            continue
    return tuple(found)


_GARBLED = (ValueError, TypeError, AttributeError, KeyError)  # an answer that is none, of a proxy
_FAILURES: tuple[type[Exception], ...] = (SchemaRegistryError, *_errors_of_http(), *_GARBLED)
_PASSING = (408, 429)  # and all from 500 on: ask again


def _passes(error: Exception) -> bool:
    """Whether asking again may help."""
    if not isinstance(error, SchemaRegistryError):
        return True
    return error.http_status_code >= 500 or error.http_status_code in _PASSING


class Registry:
    """Schemas of one registry, each asked for once.

    Args:
        url: http(s)://host:port, several with commas; mock:// for tests.
        options: of confluent-kafka's registry client, under its own names; a text may hold
            ${env:NAME} and ${file:PATH}.
        serialized: ask for Protobuf schemas in serialized form.
        patience: seconds before a number that is not known is asked for again, each of them once.
        client: another client, for tests.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, object] | None = None,
        *,
        serialized: bool = False,
        patience: Sequence[float] = PATIENCE,
        client: SchemaRegistryClient | None = None,
    ) -> None:
        self._address = url
        self.url = url.rpartition("@")[2] if "@" in url else url  # without a password
        self._options = options or {}
        self._own = client is None
        self._secrets = Secrets(self._options)
        self._client = client or _client(url, self._secrets)
        self._format = "serialized" if serialized else None
        self._patience = tuple(patience)
        self._verdicts: dict[int, Registered | str] = {}
        self._asked: set[int] = set()
        self._refused: str | None = None
        self._closed = threading.Event()
        self._connected = True

    def known(self, number: int) -> Registered | str | None:
        """The schema of a number, or why there is none; None while it is asked for.

        Raises: UserError where the registry refuses to answer.
        """
        found = self._verdicts.get(number)
        if found is None and self._refused is not None:
            raise UserError(self._refused)
        if found is None and number not in self._asked and len(self._asked) < AT_ONCE:
            self._asked.add(number)
            name = f"registry-{number}"
            threading.Thread(target=self._ask, args=(number,), name=name, daemon=True).start()
        return found

    @property
    def connected(self) -> bool:
        """Whether it answered of late."""
        return self._connected

    def register(self, subject: str, text: str, kind: str = "AVRO", tries: int = 6) -> int:
        """The number of a schema under a subject, registered where it is not there yet.

        Waits while the registry is away, about 10 s. Raises: UserError after that, or where the
        registry refuses.
        """
        schema = Schema(text, kind)
        found = self._repeated(lambda: self._client.register_schema(subject, schema), tries)
        if isinstance(found, int):
            return found
        raise UserError(f"registry {self.url}: must take the schema of {subject}, but {found}")

    def close(self) -> None:
        """Ask no more; may be called twice."""
        self._closed.set()

    # -- in a thread of its own --------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        waits = iter(self._patience)
        while True:
            found = self._repeated(lambda: self._look_up(number), None)
            if found is not None and not isinstance(found, str):
                self._verdicts[number] = found
                break
            wait = next(waits, None)
            if wait is None:
                self._verdicts[number] = f"schema {number} is not known to the registry"
                break
            if self._closed.wait(wait) or self._refused is not None:
                break
        self._asked.discard(number)

    def _look_up(self, number: int) -> Registered | None:
        """The schema; None where it is not known."""
        try:
            schema = self._client.get_schema(number, fmt=self._format)
            references: dict[str, str] = {}
            self._follow(schema.references or [], references)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                return None
            raise
        if not schema.schema_str:
            self._client.clear_caches()  # it would give this answer again
            raise ValueError("the answer has no schema")
        kind = schema.schema_type or "AVRO"
        return Registered(kind, schema.schema_str, tuple(references.items()))

    def _follow(self, references: Sequence[SchemaReference], found: dict[str, str]) -> None:
        for reference in references:
            name = reference.name or ""
            if name in found:
                continue
            version = self._client.get_version(
                reference.subject or "", reference.version or 1, True, self._format
            )
            self._follow(version.schema.references or [], found)
            found[name] = version.schema.schema_str or ""

    def _repeated(self, ask: Callable[[], Any], tries: int | None) -> Any:
        """What a question gives, asked until it is answered; text says why it was not."""
        failures = 0
        while not self._closed.is_set():
            try:
                self._renew()
                answer = ask()
            except _FAILURES as error:
                if not _passes(error):
                    self._refused = f"registry {self.url}: refuses to answer: {error}"
                    return f"it answers: {error}"
                failures += 1
                self._away(error, failures)
                if failures == tries:
                    return f"it does not answer: {error}"
                self._closed.wait(BACK_OFF[min(failures, len(BACK_OFF)) - 1])
                continue
            self._back(failures)
            return answer
        return "it was closed"

    def _renew(self) -> None:
        """Another client where a file with a secret has changed."""
        if self._own and self._secrets.changed():
            self._secrets = Secrets(self._options)
            self._client = _client(self._address, self._secrets)

    def _away(self, error: Exception, failures: int) -> None:
        if self._connected:
            _log.warning(
                "registry %s: does not answer (%s); messages of schemas not known yet wait",
                self.url,
                str(error) or type(error).__name__,
            )
        self._connected = False

    def _back(self, failures: int) -> None:
        if failures and not self._connected:
            _log.warning("registry %s: answers again", self.url)
        self._connected = True


def _client(url: str, secrets: Secrets) -> SchemaRegistryClient:
    """confluent-kafka's client. Raises: UserError for an option that it does not take."""
    try:
        return SchemaRegistryClient.new_client({**DEFAULTS, **secrets.options, "url": url})
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"registry: {error}") from None
