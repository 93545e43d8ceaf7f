"""The real streams of the shared data folder: which there are, and what is predicted in them."""

import os
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STREAMLEARN_DATA", ROOT.parent / "shared" / "data"))


class Stream(NamedTuple):
    """A stream to replay: its name, its target, and columns to leave out, with commas between."""

    name: str
    target: str
    ignore: str | None = None

    @property
    def path(self) -> Path:
        """Its file."""
        return DATA / f"{self.name}.parquet"


_LOBO = [f"{kind}_{drift}" for kind in ("sine", "mixed", "sea", "stagger", "randomtree")
         for drift in ("abrupt", "gradual")]  # fmt: skip
CLASSIFICATION = [
    Stream("electricity", "class"),
    Stream("covertype", "Cover_Type"),
    *(Stream(f"lobo_{name}", "class") for name in _LOBO),
    Stream("phishing", "is_phishing"),
    Stream("digits", "digit"),
]
ANOMALIES = [Stream("shuttle_anomaly", "anomaly")]
REGRESSION = [Stream("toulouse_bikes", "bikes"), Stream("fried", "target")]


def there() -> bool:
    """Whether the folder is there at all."""
    return (DATA / "manifest.json").exists()
