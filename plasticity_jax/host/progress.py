"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time

import tqdm

__all__ = ["Progress"]

LINE_SECONDS = 30.0


class Progress:
    """Steps done, steps per second of all runs together, time left; the first stretch, which compiles, is not timed.

    Args:
      name: what is running.
      total: optimizer steps of one run.
      done: steps that were done before.
      runs: how many runs take each step.
      stream: where to write; a bar where it is a terminal.
    """

    def __init__(self, name, total, done=0, runs=1, stream=None):
        self._stream = stream or sys.stderr
        self._runs, self._total, self._done, self._name = runs, total, done, name
        self._begin, self._first, self._last = None, done, float("-inf")
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm.tqdm(
                total=total, initial=done, desc=name, unit=" steps", unit_scale=True, file=self._stream, smoothing=0.1
            )

    def advance(self, steps, note=""):
        """Count `steps` more steps of every run; `note` is shown beside them."""
        self._done += steps
        if self._begin is None:
            self._begin, self._first = time.monotonic(), self._done
        with contextlib.suppress(OSError):  # a terminal that is gone or a full disk must not end the training
            self._show(steps, note)

    def _show(self, steps, note):
        rate = self._rate()
        shown = [f"{rate:,.0f} seed-steps/s"] if rate else []
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(shown + [note] * bool(note)), refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._last > LINE_SECONDS or self._done >= self._total:
            self._last = time.monotonic()
            shown += [f"{self._left(rate)} left"] if rate else []
            told = [f"{self._name}: {self._done:,} of {self._total:,} steps", *shown, *[note] * bool(note)]
            self._stream.write(", ".join(told) + "\n")
            self._stream.flush()

    def close(self):
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _rate(self):
        elapsed = time.monotonic() - self._begin
        return (self._done - self._first) * self._runs / max(elapsed, 1e-9)

    def _left(self, rate):
        return tqdm.tqdm.format_interval((self._total - self._done) * self._runs / rate)
