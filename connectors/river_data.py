"""River's bundled data sets and synthetic streams by name: `river:Phishing`, `river:SEA?seed=3`."""

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

from streamlearn.errors import UserError

SYNTHETIC_ROWS = 100_000  # of a stream that never ends, unless n says otherwise
TARGET = "target"


def _classes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Data sets and generators by name; River is imported here and nowhere earlier."""
    from river import datasets
    from river.datasets import base, synth

    found = []
    for module in (datasets, synth):
        items = {n: c for n, c in vars(module).items() if inspect.isclass(c) and n[0].isupper()}
        found.append({n: c for n, c in items.items() if issubclass(c, base.Dataset)})
    found[1].pop("ConceptDriftStream", None)  # needs two streams: see our own `drift:` streams
    return found[0], found[1]


def names() -> list[str]:
    """What can follow `river:`: the bundled sets, and the generators."""
    sets, generators = _classes()
    from river.datasets import base

    bundled = [n for n, c in sets.items() if issubclass(c, base.FileDataset)
               and not issubclass(c, base.RemoteDataset)]  # fmt: skip
    return sorted(bundled) + sorted(generators)


def river_records(name: str, options: dict[str, str]) -> "RiverRecords":
    """The stream of a name, as dicts with the target among them.

    options: constructor arguments of a generator, and n, the number of rows.
    Raises: UserError for an unknown name, an option it does not take, data still to be downloaded.
    """
    sets, generators = _classes()
    where = f"river:{name}"
    known = sets | generators
    if name not in known:
        raise UserError(f"{where}: there is no such data set; choose one of {', '.join(names())}")
    arguments = {key: _value(text) for key, text in options.items() if key != "n"}
    if name in generators and "seed" in inspect.signature(known[name]).parameters:
        arguments.setdefault("seed", 0)
    try:
        data = known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {str(error).replace('__init__() ', '')}") from None
    if getattr(data, "is_downloaded", True) is False:
        raise UserError(
            f"{where}: River has to download it first; "
            f'run `python -c "from river import datasets; datasets.{name}().download()"`'
        )
    return RiverRecords(data, _rows(options.get("n"), name in generators, where))


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _rows(given: str | None, endless: bool, where: str) -> int | None:
    if given is None:
        return SYNTHETIC_ROWS if endless else None
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{where}: n must be a whole number >= 1, got {given!r}")
    return int(given)


class RiverRecords:
    """An iterable that starts anew each time: x, and y under the name of the target."""

    def __init__(self, data: Any, rows: int | None) -> None:
        self._data, self._rows = data, rows
        named = getattr(data, "target", None)
        self.target: str = named if isinstance(named, str) else TARGET

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for x, y in islice(iter(self._data), self._rows):
            yield self._record(x, y)

    def _record(self, x: Any, y: Any) -> dict[str, Any]:
        features = x if isinstance(x, dict) else {"x": x}
        answer = y if isinstance(y, dict) else {self.target: y}
        return {str(name): value for name, value in features.items()} | answer
