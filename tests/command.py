"""Run `hf-geaau` in this process: importing torch anew each time would take longer than the tests."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from hf_geaau_cli import main


def run_command(*arguments: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Return what the command printed, and check its exit code; None for 0 or 1."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "argv", ["hf-geaau", *map(str, arguments)]),
        mock.patch.dict(os.environ, COLUMNS="200", NO_COLOR="1"),
        pytest.raises(SystemExit) as end,
    ):
        main()
    ended = end.value.code or 0
    assert ended in ((0, 1) if code is None else (code,)), err.getvalue() + out.getvalue()
    assert "Traceback" not in err.getvalue()
    return subprocess.CompletedProcess([], ended, out.getvalue(), err.getvalue())
