"""The section of a configuration about learning over HTTP, and what it makes of the others."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from streamlearn.config_serving import ServedSection
from streamlearn.config_topics import Rows
from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.config import Config

REQUESTS = "requests"  # what stands for a source


class ServeSection(ServedSection):
    """HTTP to ask and to learn by id; `serve: {port: 8000}` is enough, or `serve: 8000`.

    max_body: bytes of a request at most. max_batch: events or labels of a request at most.
    backlog: requests' records that wait for the engine at most; beyond it 503. remember: ids whose
    answer is given again. wait: seconds that an answer is waited for.
    timeout, assume, max_pending, memory_mb: of labels that do not come, as under `labels`.
    """

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_body: Rows = 1 << 20
    max_batch: Rows = 10_000
    backlog: Rows = 20_000
    remember: Rows = 65_536
    wait: Annotated[float, Field(gt=0)] = 30.0
    timeout: int | str | None = None
    assume: str | int | float | bool | None = None
    max_pending: Rows = 1_000_000
    memory_mb: Rows = 256

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        return {"port": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits(self) -> "ServeSection":
        if self.max_batch > self.backlog:
            got = f"{self.max_batch} > {self.backlog}"
            raise ValueError(f"max_batch must be <= backlog, or it never fits; got {got}")
        if self.remember < self.backlog:
            got = f"{self.remember} < {self.backlog}"
            raise ValueError(f"remember must be >= backlog, so that what waits is known; got {got}")
        return self


def served(config: "Config") -> "Config":
    """A configuration whose events and labels are requests.

    Raises: UserError for what must be there, or cannot be together with requests.
    """
    section = config.serve or ServeSection()
    for key in ("schema_", "pipeline", "checkpoint"):
        if getattr(config, key) is None:
            name = key.rstrip("_")
            raise UserError(f"{name}: must be there to serve; `streamlearn init DATA` writes it")
    schema = config.schema_
    if schema is None or schema.id is None or schema.target is None:
        raise UserError("schema: must name an id and a target to serve: `id: id`, `target: y`")
    if schema.label_time is not None:
        raise UserError("schema.label_time: is for replays; labels are learnt when they come")
    if config.kafka is not None:
        raise UserError("kafka: is for `streamlearn run`; what is served is written to files")
    if config.labels is not None:
        raise UserError(
            "labels: come by POST /learn; say timeout, assume, max_pending and memory_mb of them "
            "under serve"
        )
    given = ("timeout", "assume", "max_pending", "memory_mb")
    labels = {"source": REQUESTS} | {name: getattr(section, name) for name in given}
    said = {name: value for name, value in labels.items() if value is not None}
    from streamlearn.config import LabelsSection

    late = LabelsSection.model_validate(said)
    return config.model_copy(update={"source": REQUESTS, "labels": late, "serve": section})
