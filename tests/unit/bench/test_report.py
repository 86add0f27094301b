"""What a run leaves behind can be read: Markdown with whole rows, and a plot that is XML and shows every engine."""

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from tests.bench import report
from tests.bench.calibration import Calibration
from tests.bench.figures import Figure, Latency, Measured, Table, latency_figures
from tests.bench.peers.drive import Ran
from tests.bench.report.table import table
from tests.bench.run import Run

RUN = Run(
    began_at="2026-11-24T00:00:00+00:00",
    samples=500,
    calibration=Calibration(
        cold_python=Latency(30, 40, 50, 100),
        fib_33=0.4,
        selects=20_000,
        selects_by="pgbench",
        cores=2,
        cpu="a <fast> one",
        load=0.1,
        versions={"Python": "3.11"},
    ),
    measured=[
        Measured(
            measurement="p1",
            shape="all-in-one",
            figures=latency_figures("one job", Latency(10, 15, 20, 500)),
            missing={"one warm job p50": "not available yet"},
        ),
        Measured(
            measurement="stages",
            shape="all-in-one",
            tables=[
                Table("spans", ("span",), [("a",)]),
                Table("way", ("moment", "at", "since"), [("a", "0", "0"), ("b", "7", "7.00"), ("c", "8", "1.00")]),
            ],
        ),
        Measured(measurement="p4", shape="all-in-one", figures=[Figure("isolated Python", 120, "jobs/s")]),
    ],
    peers={
        "dbos": Ran(
            title="DBOS 3", isolation="none", what="a workflow", one_job=Latency(5, 6, 8, 200), jobs_per_second=240
        ),
        "celery": Ran(title="Celery", isolation="children", what="a task", missing="it can't be installed: no wheel"),
    },
)


def test_the_table_names_ratios_misses_and_reasons(tmp_path: Path) -> None:
    text = report.write(RUN, tmp_path)
    assert "| P1 | one job p50 | all-in-one | ≤ 7 ms | 10 ms | **missed**" in text
    assert "a → b: 7.00 ms" in text
    assert "not available yet" in text
    assert "left out: it can't be installed: no wheel" in text
    (dbos,) = [line for line in text.splitlines() if line.startswith("| DBOS 3")]
    assert "| 0.50 \N{MULTIPLICATION SIGN} | 240 | 0.50 \N{MULTIPLICATION SIGN} |" in dbos
    assert "busy" not in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    cells = None
    for line in report.write(RUN, tmp_path).splitlines():
        here = line.replace("\\|", "").count("|") if line.startswith("|") else None
        assert None in (here, cells) or here == cells
        cells = here


def test_the_plot_is_xml_and_shows_whoever_was_measured(tmp_path: Path) -> None:
    report.write(RUN, tmp_path)
    plot = ET.parse(tmp_path / "plot.svg").getroot()
    words = {each.text for each in plot.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Tidemill, all-in-one", "DBOS 3"} <= words
    assert "Celery" not in words


def test_what_was_measured_can_be_read_again(tmp_path: Path) -> None:
    report.write(RUN, tmp_path)
    again = msgspec.json.decode(tmp_path.joinpath("latest.json").read_bytes(), type=Run)
    assert table(again) == table(RUN)
