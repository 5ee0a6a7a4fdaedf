"""Signals that ask a job to stop."""

import contextlib
import os
import signal

__all__ = ["interrupts"]


@contextlib.contextmanager
def interrupts():
    """SIGTERM and the first SIGINT ask to stop at the end of the segment; a second SIGINT interrupts at once."""
    received = []

    def note(number, frame):
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # os.write: print may not be called again inside itself
                os.write(2, b"\nStopping at the end of the segment; Ctrl-C again stops at once.\n")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
