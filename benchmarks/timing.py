"""Timing by turns: workers that are warm and wait, rounds that alternate between them, medians and their spread.

Only the standard library is imported, because the peers' interpreter runs this file too. A worker is a process that
imports and compiles what it needs, says that it is ready, and then times itself once for each line it is sent. Between
two lines it sleeps, so that all contenders of a table are loaded at once and none disturbs another.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

__all__ = [
    "Worker",
    "alternate",
    "answer_of",
    "ask",
    "best_rate",
    "compared",
    "peers_python",
    "pin",
    "race",
    "ratio",
    "serve",
    "spread",
    "table",
    "text_of",
]

BENCHMARKS = pathlib.Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def pin(core):
    """Keep this process on one core (None: on all of them). Call before a library counts the cores."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def serve(measure):
    """Say that this process is ready, then answer each line of stdin with one line of JSON: measure()."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not be taken for an answer
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), file=answers, flush=True)


def answer_of(script, *arguments, environment=None):
    """What a script of benchmarks/ prints last, as JSON; it runs in a process of its own, with variables added."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    environment = {**os.environ, **(environment or {})}
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    return json.loads(printed.splitlines()[-1])


class Worker:
    """A process that `serve`s; use as a context manager.

    Args:
      script: file name in benchmarks/.
      arguments: its command line.
      python: interpreter; by default the one that runs this.
      environment: variables to add.
    """

    def __init__(self, script, *arguments, python=None, environment=None):
        self._name = " ".join([script, *map(str, arguments)])
        self._process = subprocess.Popen(
            [python or sys.executable, str(BENCHMARKS / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def answer(self):
        """The next thing that the worker says."""
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}; its message is above.")
        return json.loads(line)

    def start(self):
        """Ask for one measurement; `answer` waits for it."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def ask(workers):
    """One measurement by each of these workers, all at the same time: a list of answers."""
    for worker in workers:
        worker.start()
    return [worker.answer() for worker in workers]


def alternate(teams, rounds):
    """Measure each team `rounds` times, by turns.

    Args:
      teams: name -> workers that are measured at the same time, all of them ready.
      rounds: how many turns each team gets.

    Returns:
      name -> [rounds] lists of the workers' answers.
    """
    answers = {name: [] for name in teams}
    for _ in range(rounds):
        for name, workers in teams.items():
            answers[name].append(ask(workers))
    return answers


def race(teams, rounds):
    """Seed-steps per second of each team in each round: name -> [rounds] floats. Ends the workers."""
    with contextlib.ExitStack() as stack:
        for worker in [worker for workers in teams.values() for worker in workers]:
            stack.enter_context(worker)
            worker.answer()  # it is ready
        answers = alternate(teams, rounds)
    if not all(a.get("finite", True) for turns in answers.values() for turn in turns for a in turn):
        raise RuntimeError("our training diverged: its times do not count.")
    return {
        name: [sum(a["seed_steps"] / a["seconds"] for a in turn) for turn in turns] for name, turns in answers.items()
    }


def compared(title, rates, limit_seconds):
    """One row per team: rate, microseconds per seed and step, share of the roofline; and the table as text."""
    rows = {}
    for name, values in rates.items():
        seconds = 1 / spread(values)["median"]
        rows[name] = {
            "seed_steps_per_second": spread(values),
            "microseconds": 1e6 * seconds,
            "share_of_roofline": limit_seconds / seconds,
        }
    print(table(title, ("", "seed-steps/s", "us", "roofline share"), [(n, *r.values()) for n, r in rows.items()]))
    return rows


def ratio(ours, theirs):
    """Spread of the ratio of rates of the same turn."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def spread(values):
    """{"median", "low", "high"} of the rounds; low and high are the extremes."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def best_rate(repeat, work, seconds):
    """The highest rate seen: work units per second.

    Args:
      repeat: function (count) that does the work `count` times and returns when it is done.
      work: units, such as FLOPs, of doing it once.
      seconds: how long to try. The clock is read about every 5 ms, or every repetition where one takes longer.
    """
    count, best, end = 1, float("inf"), None
    while end is None or time.perf_counter() < end:
        begin = time.perf_counter()
        repeat(count)
        taken = time.perf_counter() - begin
        if end is None and taken < 0.005 and count < 1 << 24:
            count *= 2
            continue
        end = end or time.perf_counter() + seconds
        best = min(best, taken / count)
    return work / best


def peers_python(given=None):
    """The interpreter of the peers: as given, else that of .venv-bench; None where there is none or "none" is given."""
    if given == "none":
        return None
    path = pathlib.Path(given) if given else ROOT / ".venv-bench" / "bin" / "python"
    if given and not path.exists():
        raise ValueError(f"--peers {given}: there is no such interpreter. `make bench` makes one in .venv-bench.")
    return str(path) if path.exists() else None


def text_of(value):
    """A number with three digits, a spread as `median [low, high]`, anything else as it is."""
    if isinstance(value, dict):
        return f"{text_of(value['median'])} [{text_of(value['low'])}, {text_of(value['high'])}]"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(title, header, rows):
    """A table as text: the first column to the left, the others to the right."""
    cells = [list(header), *([text_of(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:], ""])
