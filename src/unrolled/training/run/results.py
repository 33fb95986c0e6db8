"""Results of a sweep: the table, the picture, the best job and the commands for it."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from unrolled import durable
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.run.records import COMPLETE, FINISHED, REFUSED, RUNNING, JobRecord

TABLE, PICTURE = "results.csv", "results.png"


def write_results(folder: Path, keys: Sequence[str], jobs: Sequence[JobRecord]) -> None:
    """Writes results.csv, with all digits, the state of each job and the errors, unless no job began.

    Args:
        folder: of the sweep.
        keys: what differs between the jobs.
        jobs: the records.
    """
    if any(job.state not in (RUNNING, REFUSED) for job in jobs):
        table = io.StringIO(newline="")
        csv.writer(table).writerows(_rows(keys, jobs, whole=True))
        durable.replace(folder / TABLE, lambda partial: partial.write_text(table.getvalue(), "utf-8", newline=""))


def show_results(folder: Path, keys: Sequence[str], jobs: Sequence[JobRecord], *, interrupted: bool) -> None:
    """Prints the table, the best job and the commands for it to stdout, and failures to stderr; draws the picture.

    Args:
        folder: of the sweep.
        keys: what differs between the jobs.
        jobs: the records.
        interrupted: whether a signal ended the sweep.
    """
    rows = _rows(keys, jobs, whole=False)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    if (folder / TABLE).is_file():
        print(f"\n{folder / TABLE}")
        if _draw(folder, keys, jobs):
            print(folder / PICTURE)
    _print_best(folder, keys, jobs)
    for job in jobs:
        if job.error:
            print(f"failed: {_asked(job, keys)}: {job.error}", file=sys.stderr)
    if interrupted or any(job.state not in (*FINISHED, REFUSED) for job in jobs):
        print(f"go on with this sweep: -m resume={quote_value(str(folder))}", flush=True)


def best_job(jobs: Sequence[JobRecord]) -> JobRecord | None:
    """Returns the job with the best validation; None if no run has one, or if the runs monitor different metrics."""
    scored = [job for job in jobs if job.state == COMPLETE and math.isfinite(job.score)]
    if not scored or any(job.monitor != scored[0].monitor for job in scored):
        return None
    sign = -1 if scored[0].monitor.get("mode") == "max" else 1
    return min(scored, key=lambda job: sign * job.score)


def swept_values(job: JobRecord, keys: Sequence[str]) -> dict[str, str]:
    """Returns the values of a job for the keys that differ between jobs."""
    given = (override.partition("=") for override in job.overrides)
    values = {key.lstrip("+"): value for key, _, value in given}
    return {key: values.get(key, "") for key in keys}


def _print_best(folder: Path, keys: Sequence[str], jobs: Sequence[JobRecord]) -> None:
    best = best_job(jobs)
    if best is None:
        return
    score = f"{best.monitor.get('metric', 'validation')} {best.score:.4f}"
    print(f"\nbest: job {best.number}: {' '.join([_asked(best, keys), score]).strip()}")
    path = folder / best.folder / "summary.json"
    commands = json.loads(path.read_text(encoding="utf-8")).get("next", []) if path.is_file() else []
    for command in commands:
        print(command)


def _draw(folder: Path, keys: Sequence[str], jobs: Sequence[JobRecord]) -> bool:
    """Draws the picture, if two jobs or more have a score; returns whether it did."""
    scored = [job for job in jobs if math.isfinite(job.score)]
    monitors = {tuple(sorted(job.monitor.items())) for job in scored}
    if len(scored) < 2 or len(monitors) > 1 or not keys:
        return False
    from unrolled.training.run.parallel_coordinates import draw_parallel_coordinates  # imports matplotlib

    rows = [(list(swept_values(job, keys).values()), job.score) for job in scored]
    monitor = scored[0].monitor
    best = best_job(jobs)
    draw_parallel_coordinates(
        folder / PICTURE,
        keys,
        rows,
        metric=monitor.get("metric", "best_validation"),
        maximize=monitor.get("mode") == "max",
        best=None if best is None else scored.index(best),
    )
    return True


def _asked(job: JobRecord, keys: Sequence[str]) -> str:
    return " ".join(f"{key}={value}" for key, value in swept_values(job, keys).items()) or f"job {job.number}"


def _rows(keys: Sequence[str], jobs: Sequence[JobRecord], *, whole: bool) -> list[list[str]]:
    """Returns the header and a row for each job; with `whole`, all digits, the states and the errors."""
    names = list(dict.fromkeys(name for job in jobs for name in job.numbers))
    rows = [[*keys, *names, "folder", *(["state", "error"] if whole else [])]]
    for job in jobs:
        numbers = (job.numbers.get(name) for name in names)
        shown = ["" if number is None else repr(number) if whole else f"{number:.4f}" for number in numbers]
        place = job.folder if whole or job.state == COMPLETE else job.state
        values = [value if whole else _short(value) for value in swept_values(job, keys).values()]
        rows.append([*values, *shown, place, *([job.state, job.error] if whole else [])])
    return rows


def _short(value: str) -> str:
    """Returns a number with many digits, such as one that Optuna draws, with five."""
    return f"{float(value):.5g}" if re.fullmatch(r"-?\d+(\.\d{6,})?(e[-+]?\d+)?", value) and "." in value else value
