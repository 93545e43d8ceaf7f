"""Records that did not fit, as messages of a topic."""

from collections.abc import Sequence

import msgspec

from streamlearn.connectors.kafka.outputs import Output, Outputs
from streamlearn.connectors.kafka.sinks import POSITION, PredictionSink
from streamlearn.connectors.kafka.wire import Headers, Outgoing
from streamlearn.contracts import Json, Reject

REASON, PAYLOAD = "streamlearn-reason", "streamlearn-payload"
REDACTED = "[redacted]"
_MOST = 900_000  # bytes of a payload: a broker takes messages of 1 MiB, if not told otherwise
_MOST_REASON = 1_000  # letters


class DeadLetterSink:
    """One message for each record that did not fit: its bytes as they came, so that it can be sent
    again where it came from.

    Headers: `streamlearn-reason`; `streamlearn-position`, topic/partition/offset of the record; and
    `streamlearn-payload`, where the value is not the record's bytes: `redacted`, `left out`, or
    `cut, N bytes`, of which the first 900,000 are there.

    Args:
        outputs: of the lineage. topic: it must be there. redact: fields of a JSON object, at any
            depth, whose values are replaced by "[redacted]"; what is no JSON object is left out
            then, and so is the value in the reason. payload: whether the record's bytes go along.
    """

    guarantee = PredictionSink.guarantee.replace("each answer", "each record that did not fit", 1)

    def __init__(
        self, outputs: Outputs, topic: str, *, redact: Sequence[str] = (), payload: bool = True
    ) -> None:
        self._outputs, self._output = outputs, Output(outputs, "dead_letters", topic)
        self._redact, self._payload = frozenset(redact), payload

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._output.open(position)

    def write(self, rejects: list[Reject]) -> None:
        """Take some rejects; acknowledged by the broker no later than `commit`."""
        rejects = rejects[self._output.there_already(len(rejects)) :]
        values: list[bytes | None] = []
        headers: list[Headers] = []
        for reject in rejects:
            value, kept, secrets = self._value(reject.raw)
            place = f"{reject.partition}/{reject.position}"
            reason = self._reason(reject.reason, secrets)
            told: Headers = [(REASON, reason), (POSITION, place.encode())]
            values.append(value)
            headers.append(told if kept is None else [*told, (PAYLOAD, kept)])
        self._outputs.send(Outgoing(self._output.topic, values, None, headers, None))

    def _value(self, raw: bytes) -> tuple[bytes, bytes | None, list[str]]:
        """What goes along of a record, what was done to it, and what must not be told."""
        done, secrets = None, list[str]()
        if self._redact:
            shown = self._redacted(raw, secrets)
            if shown is None or len(shown) > _MOST:
                return b"", b"left out", secrets
            raw, done = shown, b"redacted"
        if not self._payload:
            return b"", b"left out", secrets
        if len(raw) > _MOST:
            return raw[:_MOST], b"cut, %d bytes" % len(raw), secrets
        return raw, done, secrets

    def _redacted(self, raw: bytes, secrets: list[str]) -> bytes | None:
        """A JSON object without the values of some fields; None for anything else."""
        try:
            record = msgspec.json.decode(raw)
            if not isinstance(record, dict):
                return None
            return msgspec.json.encode(self._hidden(record, secrets))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None

    def _hidden(self, value: Json, secrets: list[str]) -> Json:
        if isinstance(value, list):
            return [self._hidden(entry, secrets) for entry in value]
        if not isinstance(value, dict):
            return value
        secrets += [str(entry) for name, entry in value.items() if name in self._redact]
        return {
            name: REDACTED if name in self._redact else self._hidden(entry, secrets)
            for name, entry in value.items()
        }

    def _reason(self, reason: str, secrets: list[str]) -> bytes:
        """Why it did not fit, without the value where values must not be told."""
        if self._redact or not self._payload:
            reason = reason.partition(", got ")[0]
        for secret in filter(None, secrets):
            reason = reason.replace(secret, REDACTED)
        return reason[:_MOST_REASON].encode("utf-8", "backslashreplace")

    def commit(self) -> Json:
        """Wait until all that was written is acknowledged; how to go on from here."""
        return self._output.commit()

    def close(self) -> None:
        """Release the connection; may be called twice."""
        self._outputs.close()
