"""Kafka: topics as sources and sinks. kafka-python is the default client, confluent-kafka another.

Nothing here imports a client before one is asked for.
"""

import importlib
import warnings

from streamlearn.connectors.kafka.wire import Client
from streamlearn.errors import UserError

_CLIENTS = {  # name -> its module here, the extra that installs it
    "kafka-python": ("kafka_python", "kafka"),
    "confluent": ("confluent", "confluent"),
}
TAPE = "tape"  # a recording in the place of a broker


def client_named(name: str) -> Client:
    """The backend of a client library.

    Raises: UserError for an unknown name, or a library that is not installed.
    """
    if name == TAPE:
        from streamlearn.connectors.kafka.tape import CLIENT

        return CLIENT
    if name not in _CLIENTS:
        raise UserError(f"client: must be {' or '.join(_CLIENTS)}, got {name!r}")
    module, extra = _CLIENTS[name]
    try:
        with warnings.catch_warnings():
            # kafka-python reads its schemas by functions that Python 3.11 and 3.12 deprecate
            warnings.filterwarnings("ignore", r"(read|open)_text is deprecated", DeprecationWarning)
            found = importlib.import_module(f"streamlearn.connectors.kafka.{module}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("streamlearn"):
            raise
        raise UserError(
            f"client: {name} needs the package {error.name!r}; pip install 'streamlearn[{extra}]'"
        ) from None
    client: Client = found.CLIENT
    return client
