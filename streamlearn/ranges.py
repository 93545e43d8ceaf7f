"""Declared ranges of arguments, and settings drawn from them: what a search walks through."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streamlearn import yaml12
from streamlearn.errors import UserError
from streamlearn.jit.counter import key_of, uniforms

_FORMS = "r=0.01..10:log, n=1..100 or a=x,y,z"
_GRID = 10_000  # values of one range that are enumerated at most


class Range(NamedTuple):
    """The values that one argument may have: `choices`, or all from low to high.

    whole: whole numbers only. log: spread evenly over the logarithm.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def values(self) -> list[Any] | None:
        """Every value, or None where they cannot be listed."""
        if self.choices:
            return list(self.choices)
        if self.whole and self.high - self.low < _GRID:
            return list(range(int(self.low), int(self.high) + 1))
        return None

    def at(self, u: float) -> Any:
        """The value at a share u of the range, 0 < u < 1; numbers to six significant digits."""
        if self.choices:
            return self.choices[int(u * len(self.choices))]
        high = self.high + 1.0 if self.whole else self.high
        if self.log:
            x = math.exp(math.log(self.low) + u * (math.log(high) - math.log(self.low)))
        else:
            x = self.low + u * (high - self.low)
        if self.whole:
            return min(max(math.floor(x), int(self.low)), int(self.high))
        return min(max(float(f"{x:.6g}"), self.low), self.high)

    def __str__(self) -> str:
        if self.choices:
            return ",".join(map(str, self.choices))
        ends = [f"{int(x)}" if self.whole else f"{x:g}" for x in (self.low, self.high)]
        return "..".join(ends) + (":log" if self.log else "")


def parse_ranges(given: Mapping[str, Any] | Iterable[str] | str) -> dict[str, Range]:
    """Ranges by argument.

    Args:
        given: texts such as `r=0.01..10:log` (numbers between, evenly in the logarithm), `n=1..100`
            (whole numbers, for both ends are) and `a=x,y,z` (one of these, typed as YAML does), or
            a mapping from the argument to what would stand behind the `=`, or to a list of values.
    Raises: UserError for none, a malformed one, or two of one argument.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        pairs = [_split(text) for text in ([given] if isinstance(given, str) else given)]
    if not pairs:
        raise UserError(f"ranges: must name at least one argument, as in {_FORMS}")
    found: dict[str, Range] = {}
    for name, body in pairs:
        if name in found:
            raise UserError(f"ranges: {name} must be given once")
        found[name] = _range(name, body)
    return found


def drawn(ranges: Mapping[str, Range], trials: int, seed: int) -> list[dict[str, Any]]:
    """Settings to try: all of them where they are at most `trials`, else so many random ones.

    Draws are counter-based, of each argument by its name: neither the order of the ranges nor the
    number of trials changes the first ones. What comes twice is tried once.
    """
    listed = [r.values() for r in ranges.values()]
    finite = [values for values in listed if values is not None]
    if len(finite) == len(listed) and math.prod(map(len, finite)) <= trials:
        return [dict(zip(ranges, values, strict=True)) for values in itertools.product(*finite)]
    shares = {name: uniforms(key_of(seed, f"tune {name}"), trials) for name in ranges}
    tried = [
        {name: r.at(float(shares[name][t])) for name, r in ranges.items()} for t in range(trials)
    ]
    return [s for t, s in enumerate(tried) if s not in tried[:t]]


def _split(text: str) -> tuple[str, str]:
    name, equals, body = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"ranges: must read like {_FORMS}, got {text!r}")
    return name.strip(), body


def _range(name: str, body: Any) -> Range:
    """What stands behind the name."""
    if isinstance(body, Range):
        return body
    if isinstance(body, str):
        return _span(name, body) if ".." in body else _listed(name, body)
    if isinstance(body, Sequence) and len(body):
        return Range(choices=tuple(body))
    raise UserError(f"ranges: {name} must be a text such as 0.01..10:log or a list, got {body!r}")


def _listed(name: str, body: str) -> Range:
    words = [word.strip() for word in body.split(",")]
    if not all(words):
        raise UserError(f"ranges: {name} must list values between commas, got {body!r}")
    return Range(choices=tuple(yaml12.parse(word, f"ranges: {name}").value for word in words))


def _span(name: str, body: str) -> Range:
    """`low..high`, or `low..high:log`."""
    ends, colon, way = body.partition(":")
    if colon and way.strip() != "log":
        raise UserError(f"ranges: {name} must end in :log or in nothing, got {body!r}")
    low, _, high = (part.strip() for part in ends.partition(".."))
    try:
        numbers = float(low), float(high)
    except ValueError:
        raise UserError(f"ranges: {name} must go from number to number, got {body!r}") from None
    if not (math.isfinite(numbers[0]) and math.isfinite(numbers[1]) and numbers[0] < numbers[1]):
        raise UserError(f"ranges: {name} must go from a number to a larger one, got {body!r}")
    if colon and numbers[0] <= 0.0:
        raise UserError(f"ranges: {name} must begin above 0 for :log, got {body!r}")
    whole = all(end.lstrip("+-").isdigit() for end in (low, high))
    return Range(low=numbers[0], high=numbers[1], whole=whole, log=bool(colon))
