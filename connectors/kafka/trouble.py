"""What a broker refuses, in one line, in the same words whichever client heard it."""

from collections.abc import Iterable

from streamlearn.connectors.kafka.wire import AwayError, BrokerError, FencedError, Partition

START_SECONDS = 10.0  # for a first answer
AWAY_SECONDS = 3.0  # a request that waits longer: the broker is away
GONE_SECONDS = 3.0  # a topic that the broker does not know for as long is gone
CLOSE_SECONDS = 3.0  # for what is under way when a client is closed
ABORT_SECONDS = 5.0  # for an abort; a broker that is away gives the transaction up by itself
STEP_SECONDS = 0.1  # no wait is longer: a signal's handler gets its turn


def named(partitions: Iterable[Partition]) -> str:
    """Partitions as topic/number, with commas."""
    return ", ".join(f"{topic}/{number}" for topic, number in partitions)


def line(error: object) -> str:
    """An error's text in one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def no_answer(what: str) -> AwayError:
    """The broker did not answer in time."""
    return AwayError(f"kafka: {what}: no broker answers in time; is it up, is the address right?")


def no_topic(topic: str) -> BrokerError:
    """The broker does not know a topic."""
    return BrokerError(f"kafka: {topic}: there is no such topic")


def no_partition(topic: str, number: int) -> BrokerError:
    """A topic has fewer partitions."""
    return BrokerError(f"kafka: {topic}: there is no partition {number}")


def gone(topic: str) -> BrokerError:
    """A topic that was there is not any more."""
    return BrokerError(f"kafka: {topic}: the topic is gone from the broker")


def no_right(what: str) -> BrokerError:
    """An ACL lacks."""
    return BrokerError(f"kafka: {what}: the broker gives no right to it; an ACL is missing")


def not_there(partition: Partition, offset: int, first: int, end: int) -> BrokerError:
    """An offset that is deleted, or not written yet."""
    return BrokerError(
        f"kafka: {named([partition])}: offset {offset} is not there; it holds {first} to {end}"
    )


def empty(topic: str) -> BrokerError:
    """A record without value and key."""
    return BrokerError(f"kafka: {topic}: a record needs a value or a key")


def too_large(topic: str) -> BrokerError:
    """A record that is beyond the topic's limit."""
    return BrokerError(
        f"kafka: {topic}: a record is larger than the broker takes; raise max.message.bytes there"
    )


def fenced(what: str, why: str) -> FencedError:
    """A later writer has taken over."""
    return FencedError(f"kafka: {what}: another writer has taken over ({why})")


def refused(what: str, why: str, error: object) -> BrokerError:
    """Anything else, by its name."""
    return BrokerError(f"kafka: {what}: {why}: {line(error)}")
