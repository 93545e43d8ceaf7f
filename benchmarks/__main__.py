"""The command: `python -m benchmarks [--quick] [--peers] [--only PART,PART] [--pages]`."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import figures, pages, suite


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="a smoke test of a second a part; writes no page")
    add("--peers", action="store_true", help="the part `peers`, too (see `make bench-peers`)")
    add("--only", metavar="PART,PART", help=f"of {', '.join(suite.PARTS)}; the others stay")
    add("--pages", action="store_true", help="measure nothing: write the pages anew")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"keep figures here, not in {suite.STORE.name}; no page",
    )
    add("--part", choices=suite.PARTS, help=argparse.SUPPRESS)  # one, in this process
    return parser.parse_args()


def main() -> None:
    """Measure, keep, write."""
    asked = arguments()
    if asked.part:
        asked.json.write_text(json.dumps(suite.measure(asked.part, asked.quick)), encoding="utf-8")
        return
    wanted = asked.only.split(",") if asked.only else [
        part for part in suite.PARTS if asked.peers or part not in suite.APART]  # fmt: skip
    for part in wanted:
        if part not in suite.PARTS:
            sys.exit(f"--only: no part {part!r}; there are {', '.join(suite.PARTS)}")
    store = asked.json or suite.STORE
    found = suite.load(store)
    failed = []
    for part in [] if asked.pages else wanted:
        print(f"{part} ...", file=sys.stderr, flush=True)
        now = suite.measure_apart(part, asked.quick)
        if now is None:
            failed.append(part)
            continue
        found[part] = now
        print("\n\n".join(suite.module(part).tables(now["measured"])), flush=True)
        if asked.json or not asked.quick:
            suite.keep(found, store)
    if not asked.quick and asked.json is None:
        for path in [*pages.write_all(found), figures.write(found)]:
            print(path)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
