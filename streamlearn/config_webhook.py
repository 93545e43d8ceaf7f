"""The section of a configuration about a webhook for alarms."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from streamlearn.config_topics import Section

if TYPE_CHECKING:
    from streamlearn.connectors.webhook import Webhook


class WebhookSection(Section):
    """Where each alarm is sent to by POST, at least once; `webhook: https://host/path` is enough.

    url: its address, http or https. headers: of each request; url and headers may hold ${env:NAME}
    or ${file:PATH}. timeout: seconds of one attempt. max_mb: MiB of alarms that wait beside the
    checkpoints while the server does not answer; beyond it new ones are dropped and counted.
    """

    url: str = Field(repr=False)
    headers: dict[str, str] = Field(default={}, repr=False)
    timeout: Annotated[float, Field(gt=0)] = 10.0
    max_mb: Annotated[int, Field(ge=1)] = 64

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "WebhookSection":
        if not self.url.startswith(("http://", "https://", "${")):
            raise ValueError("url must begin with https:// or http://")
        return self

    def opened(self, checkpoints: Path, tables: Any, model: str) -> "Webhook":
        """The sink, which opens nothing yet. checkpoints: the folder in which its outbox is."""
        from streamlearn.connectors.webhook import Webhook  # http and ssl: 40 ms

        return Webhook(
            self.url,
            checkpoints / "webhook",
            headers=self.headers,
            timeout=self.timeout,
            max_bytes=self.max_mb << 20,
            tables=tables,
            model=model,
        )
