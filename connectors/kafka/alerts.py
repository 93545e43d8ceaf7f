"""Alarms as messages of a topic."""

from typing import TYPE_CHECKING

from streamlearn.connectors.alerts import Alerts, alert_json
from streamlearn.connectors.kafka.outputs import Output, Outputs
from streamlearn.connectors.kafka.sinks import POSITION, PredictionSink
from streamlearn.connectors.kafka.wire import Headers, Outgoing
from streamlearn.contracts import Answers, Json

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables

ALERT = "streamlearn-alert"


class AlertSink:
    """One message for each alarm: a JSON object, see `Alerts`.

    Headers: `streamlearn-alert`, the number of the alarm, by which a reader drops repeats; and of
    an event `streamlearn-position`. The key is that of the event's record.
    """

    guarantee = PredictionSink.guarantee.replace("each answer", "each alarm", 1)

    def __init__(
        self, outputs: Outputs, topic: str, *, tables: "Tables | None" = None, model: str = ""
    ) -> None:
        self._outputs, self._output = outputs, Output(outputs, "alerts", topic)
        self._alerts = Alerts(tables, model)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._output.open(position)
        self._alerts.count = self._output.records

    def write(self, answers: Answers) -> None:
        """Take the alarms of one block; acknowledged by the broker no later than `commit`."""
        found = list(self._alerts.take(answers))
        found = found[self._output.there_already(len(found)) :]
        values, keys = [alert_json(alert.record) for alert in found], list[bytes | None]()
        headers: list[Headers] = []
        for record, event in found:
            told: Headers = [(ALERT, b"%d" % record["alert"])]
            if "offset" in record:
                place = f"{record['topic']}/{record['partition']}/{record['offset']}"
                told.append((POSITION, place.encode()))
            headers.append(told)
            known = None if answers.origins is None else answers.origins.keys
            keys.append(None if known is None or event is None else known[event])
        self._outputs.send(Outgoing(self._output.topic, values, keys, headers, None))

    def commit(self) -> Json:
        """Wait until all that was written is acknowledged; how to go on from here."""
        return self._output.commit()

    def close(self) -> None:
        """Release the connection; may be called twice."""
        self._outputs.close()
