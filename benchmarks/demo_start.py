"""How long a user waits: from starting the demo to its first trained task, with no compiled programs and with all.

    python benchmarks/demo_start.py

Starts `scripts/sweep.py --config configs/demo.py` twice, each time in a fresh folder, with a compilation cache of its
own that is empty the first time. The clock stops when status.json counts the first task of the first variant: it is
then trained, measured, written and saved. The process is asked to end with SIGTERM.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import timing

__all__ = ["measure"]


def measure(config="configs/demo.py", limit_seconds=300):
    """{"cold": seconds, "warm": seconds}."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        return {name: _first_task(config, folder / name, folder / "cache", limit_seconds) for name in ("cold", "warm")}


def _first_task(config, workdir, cache, limit_seconds):
    """Seconds from the start of the process to the first task that status.json counts."""
    command = [sys.executable, "scripts/sweep.py", "--config", config, "--workdir", str(workdir)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    with open(workdir.with_suffix(".log"), "w+", encoding="utf-8") as messages:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=timing.ROOT, env=environment, stdout=messages, stderr=messages)
        try:
            while not _tasks_done(workdir):
                if process.poll() is not None or time.perf_counter() - begin > limit_seconds:
                    messages.seek(0)
                    raise RuntimeError(f"{' '.join(command)} trained no task: {messages.read()[-2000:]}")
                time.sleep(0.02)
            return time.perf_counter() - begin
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _tasks_done(workdir):
    """The most tasks that any variant has done."""
    return max(
        (json.loads(path.read_text(encoding="utf-8"))["task"] for path in workdir.glob("*/status.json")), default=0
    )


if __name__ == "__main__":
    print(json.dumps(measure()))
