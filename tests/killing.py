"""Run `hf-geaau` in processes of their own, and kill them. One process imports the libraries and forks for each run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_SERVER = """
import json, os, signal, sys, time, traceback, warnings
warnings.simplefilter("ignore")
import torch
import hf_geaau.data, hf_geaau.plots, hf_geaau.synthetic, hf_geaau.training, hf_geaau.video.run
from hf_geaau_cli import main

def run(arguments, log):
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    torch.set_num_threads(1)
    sys.argv = ["hf-geaau", *arguments]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    arguments, log, kill_after = json.loads(line)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        run(arguments, log)
    status = 0, 0
    while not status[0] and (kill_after is None or time.monotonic() < start + kill_after):
        status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)
    if not status[0]:
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)  # it has no group of its own yet
        status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status[1]), time.monotonic() - start]), flush=True)
"""


class Run(NamedTuple):
    """How a command ended: its exit code (-9 if it was killed), how long it took, and what it printed."""

    code: int
    seconds: float
    printed: str


class Commands:
    """Runs commands one after another, each in a new process."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        )
        self._answer()

    def run(self, *arguments: object, kill_after: float | None = None) -> Run:
        """Run `hf-geaau` with arguments; kill it with SIGKILL after so many seconds, unless it ended before."""
        self._log.write_text("")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([list(map(str, arguments)), str(self._log), kill_after]) + "\n")
        self._process.stdin.flush()
        code, seconds = json.loads(self._answer())
        return Run(code, seconds, self._log.read_text(errors="replace"))

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs the commands died"
        return line
