"""Start `hf-geaau app`, or the app of a Space, as its users do: in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 60
STOP_S = 20


@dataclass(frozen=True)
class RunningApp:
    """Its address, its process, and the folder in which it makes its folder of uploads."""

    address: str
    process: subprocess.Popen[str]
    temporary: Path

    def uploads(self) -> list[Path]:
        """Return the files that it holds now."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@contextmanager
def running_app(
    temporary: Path, arguments: Sequence[object] = ("-m", "hf_geaau", "app", "--no-open")
) -> Iterator[RunningApp]:
    """Run Python with the arguments until the block ends; the app must end by itself on the signal."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stdout.read()
        yield RunningApp(address[0].replace("0.0.0.0", "127.0.0.1"), process, temporary)
        process.terminate()
        process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
