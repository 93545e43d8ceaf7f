"""The section of a configuration about OpenTelemetry."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from streamlearn.config_topics import Section
from streamlearn.connectors.kafka.secrets import Secrets


class TelemetrySection(Section):
    """Metrics by OpenTelemetry (OTLP over HTTP; extra `otel`);
    `telemetry: http://host:4318/v1/metrics` is enough.

    endpoint: of the collector. headers: of each export; they may hold ${env:NAME} or ${file:PATH}.
    period: seconds between two exports. timeout: seconds of one. service: the name under which it
    is exported (`service.name`); more of the resource by OTEL_RESOURCE_ATTRIBUTES.
    """

    endpoint: str
    headers: dict[str, str] = Field(default={}, repr=False)
    period: Annotated[float, Field(gt=0)] = 10.0
    timeout: Annotated[float, Field(gt=0)] = 5.0
    service: str = "streamlearn"

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        return {"endpoint": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "TelemetrySection":
        if not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint must begin with https:// or http://, got {self.endpoint!r}")
        return self

    def secrets(self) -> Mapping[str, object]:
        """The headers with their secrets in place. Raises: UserError for one that is not there."""
        return Secrets(self.headers, owner="telemetry.headers").options
