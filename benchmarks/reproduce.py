"""`make reproduce`: the tables of the specifications run again, into docs/reproduction.md."""

import sys

from benchmarks import families, pages, real, tables

ABOUT = """\
`make reproduce` writes this page: small reproductions of what the papers behind the models report,
or of what was measured while they were specified, with our figures beside. A table that needs real
streams is left out where these are absent."""


def main() -> None:
    """Run what there is, family by family, or only those that are named; write the page."""
    wanted = set(sys.argv[1:])
    if not real.there():
        sys.exit(f"no real streams in {real.DATA}; set STREAMLEARN_DATA to their folder")
    parts = []
    for module in families.modules():
        name = module.__name__.rpartition(".")[2]
        if not hasattr(module, "tables") or (wanted and name not in wanted):
            continue
        for table in module.tables(real.DATA):
            part = f"## {table.title}\n\n{tables.markdown(table.head, table.rows)}\n\n{table.note}"
            print(part, flush=True)
            parts.append(part)
    if not wanted:
        print(pages.write("reproduction", "Reproductions", ABOUT, parts))


if __name__ == "__main__":
    main()
