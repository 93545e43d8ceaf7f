"""The formats of messages by their names."""

from streamlearn.connectors.kafka.decode import MessageDecoder
from streamlearn.connectors.kafka.location import Topics
from streamlearn.schema import Schema


def decoder_of(topics: Topics, schema: Schema) -> MessageDecoder:
    """What reads the messages of some topics.

    Raises: UserError for a format that lacks something, or whose library is not installed.
    """
    from streamlearn.connectors.kafka import plain_formats, schemas

    form = topics.format
    if form.name in ("avro", "protobuf"):
        return schemas.schema_decoder(form, schema, topics.registry)
    if form.name == "json":
        return plain_formats.JsonMessages(schema)
    if form.name == "csv":
        return plain_formats.CsvMessages(schema, form.columns)
    return plain_formats.FloatMessages(schema, form.name, form.columns)
