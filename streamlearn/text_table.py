"""A table as plain text: what `print` of a comparison shows."""

from collections.abc import Sequence


def plain(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: columns without a name to the left, the others to the right."""
    rows = [list(header), *(list(row) for row in body)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            f"{cell:<{width}}" if not header[i] else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(row) for row in rows]
