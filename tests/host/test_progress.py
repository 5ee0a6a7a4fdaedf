"""Plain lines where the output is no terminal, a bar where it is."""

import io

import pytest

from plasticity_jax.host import progress
from plasticity_jax.host.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError("the reader is gone")


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `progress` sees; set clock[0]."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(clock):
    """The first stretch, which compiles, counts as done and not for the speed."""
    stream = io.StringIO()
    bar = Progress("adam", 5000, runs=8, stream=stream)
    for seconds in (50.0, 40.0, 10.0, 10.0, 10.0):
        clock[0] += seconds
        bar.advance(1000, "task 1 of 1")
    bar.close()
    assert stream.getvalue().splitlines() == [  # at most one in 30 seconds, and the last
        "adam: 1,000 of 5,000 steps, task 1 of 1",
        "adam: 2,000 of 5,000 steps, 200 seed-steps/s, 02:00 left, task 1 of 1",
        "adam: 5,000 of 5,000 steps, 457 seed-steps/s, 00:00 left, task 1 of 1",
    ]


def test_a_line_in_thirty_seconds(clock):
    stream = io.StringIO()
    bar = Progress("adam", 10_000, stream=stream)
    for _ in range(100):
        clock[0] += 1.0
        bar.advance(10)
    assert len(stream.getvalue().splitlines()) == 4
    assert "\r" not in stream.getvalue()


def test_a_resumed_run_counts_its_own_speed(clock):
    stream = io.StringIO()
    bar = Progress("adam", 10_000, done=9_000, stream=stream)
    for steps in (100, 400):
        clock[0] += 40.0
        bar.advance(steps)
    assert stream.getvalue().splitlines()[1] == "adam: 9,500 of 10,000 steps, 10 seed-steps/s, 00:50 left"


def test_a_bar_on_a_terminal():
    stream = Terminal()
    bar = Progress("adam", 200, done=100, runs=2, stream=stream)
    bar.advance(50, "task 2 of 2")
    bar.advance(50, "task 2 of 2")
    bar.close()
    shown = stream.getvalue().split("\r")[-1]
    assert "adam" in shown and "100%" in shown and "seed-steps/s" in shown and "task 2 of 2" in shown


def test_a_reader_that_is_gone_does_not_end_the_training():
    bar = Progress("adam", 10, stream=Gone())
    bar.advance(10)
    bar.close()
