"""What a run leaves behind: latest.json, table.md and plot.svg in one folder."""

from pathlib import Path

import msgspec

from tests.bench.report.plot import plot
from tests.bench.report.table import table
from tests.bench.run import Run


def write(run: Run, folder: Path) -> str:
    """Write the three files and return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(run)
    folder.joinpath("latest.json").write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")
    folder.joinpath("table.md").write_text(text, encoding="utf-8")
    folder.joinpath("plot.svg").write_text(plot(run), encoding="utf-8")
    return text
