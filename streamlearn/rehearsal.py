"""A rehearsal on invented rows: loads every kernel, and shows early what does not fit together."""

from typing import Any

from streamlearn import connectors
from streamlearn.evaluation import Evaluation
from streamlearn.job import Job, fresh, user_errors
from streamlearn.schema import Schema


def rehearse(job: Job) -> None:
    """Walk some invented rows through clones: loads or compiles every kernel that will be needed.

    What a stage does not take, such as a category without an encoder, shows before the stream does.
    Cost: what compiling costs, the first time on a machine; some milliseconds afterwards.

    Raises: UserError for stages that do not fit the schema.
    """
    twin, decoder, real = job.pipeline.clone(), fresh(job.schema), job.evaluation
    measure = Evaluation(real.task, positive=real.positive, window=real.window, fading=real.fading)
    source, _ = connectors.as_source(_invented(job.schema, 4), decoder)
    source.open({})
    with user_errors("pipeline: "):
        while (batch := source.poll(3, 0.0)) is not None:  # blocks of three rows and of one
            measure.update(batch.block, twin.run(batch.block))
        twin.load_kernels()
    source.close()
    _ = measure.rolling, measure.standing()


def _invented(schema: Schema, n: int) -> Any:
    """Records that fit a schema; no Arrow table, for Arrow makes one with all of pandas loaded."""
    return [_invented_record(schema, i) for i in range(n)]


def _invented_record(schema: Schema, i: int) -> dict[str, Any]:
    """A record that fits a schema."""
    values: dict[str, Any] = {"number": float(i), "boolean": i % 2 == 0, "time": i, "words": ["a"]}
    record = {name: values.get(f.kind, "a") for name, f in schema.features.items()}
    roles = {role: name for role, name in schema.roles().items() if role not in ("target", "group")}
    record |= dict.fromkeys(roles.values(), i)
    record |= {} if schema.group is None else {schema.group: record.get(schema.group, "a")}
    classes = {"text": "ab"[i % 2], "integer": i % 2, "boolean": i % 2 == 0}
    label = classes[schema.classes] if schema.task == "classification" else float(i)
    return record | ({} if schema.target is None else {schema.target: label})
