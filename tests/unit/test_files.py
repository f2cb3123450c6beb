"""Whole files, and the claim of a run's folder: by one process, for one run."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hf_geaau import files
from hf_geaau.errors import GeaauError, TableError
from hf_geaau.files import (
    BLOCK,
    LOCK_FILE,
    FileInUseError,
    FolderClaim,
    FolderLock,
    Spool,
    reason_of,
    whole_file,
    write_json,
)

HOLD = """
import sys, time
from hf_geaau.files import FolderClaim
claim = FolderClaim(sys.argv[1], {"seed": 1})
print("claimed", flush=True)
time.sleep(60)
"""
CLAIM = """
import sys
from hf_geaau.files import FolderClaim
FolderClaim(sys.argv[1], {"seed": 1})
"""


@pytest.fixture
def holder(tmp_path):
    """A process that claims a folder and keeps it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(
        GeaauError, match="^Another process is writing results to '.*run'. Wait for it to end"
    ) as caught:
        FolderClaim(folder, {"seed": 1})
    assert "\n" not in str(caught.value)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with FolderClaim(folder, {"seed": 1}) as claim:
        assert claim.is_resumed
        result = subprocess.run([sys.executable, "-c", CLAIM, str(folder)], capture_output=True, text=True)
        assert "Another process is writing" in result.stderr
    assert subprocess.run([sys.executable, "-c", CLAIM, str(folder)]).returncode == 0


def test_a_second_claim_in_the_same_process_is_refused(tmp_path):
    message = "Another process is writing rows"
    with FolderClaim(tmp_path, {}), pytest.raises(TableError, match=message):
        FolderClaim(tmp_path, {}, error=TableError, content="rows")
    FolderClaim(tmp_path, {}).release()


def test_the_lock_is_gone_after_the_run(tmp_path):
    with FolderClaim(tmp_path, {"seed": 1}):
        assert (tmp_path / LOCK_FILE).exists()
    assert not (tmp_path / LOCK_FILE).exists()


def test_settings_are_recorded_and_compared(tmp_path):
    with FolderClaim(tmp_path, {"seed": 1, "size": (3, 4)}, record="run.json") as claim:
        assert not claim.is_resumed
        claim.update(minutes=2.5)
    assert json.loads((tmp_path / "run.json").read_text()) == {"seed": 1, "size": [3, 4], "minutes": 2.5}
    with FolderClaim(tmp_path, {"seed": 1, "size": (3, 4)}, record="run.json") as claim:
        assert claim.is_resumed
        assert claim.recorded["minutes"] == 2.5
    message = r"Cannot resume: '.*' holds crops made with other settings \(seed was 1, is 2\)\. Pass another output"
    with pytest.raises(GeaauError, match=message):
        FolderClaim(tmp_path, {"seed": 2, "size": (3, 4)}, record="run.json", content="crops")
    with pytest.raises(GeaauError, match=r"Start over\."):
        FolderClaim(tmp_path, {"seed": 2}, record="run.json", hint="Start over.")
    assert not (tmp_path / LOCK_FILE).exists()  # a refused claim holds nothing


def test_long_settings_stay_on_a_short_line(tmp_path):
    FolderClaim(tmp_path, {"inputs": [f"{number}.jpg" for number in range(10_000)]}).release()
    with pytest.raises(GeaauError, match=r"inputs was \['0.jpg'.*… \(\d+ characters\), is \['a.jpg'\]") as caught:
        FolderClaim(tmp_path, {"inputs": ["a.jpg"]})
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_run_can_start_over(tmp_path):
    with FolderClaim(tmp_path, {"seed": 1}):
        (tmp_path / "rows").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(GeaauError, match="Another process"):  # of a live run, nothing is removed
            FolderClaim(tmp_path, {"seed": 2}, start_over=True)
        assert (tmp_path / "rows").exists()
    with FolderClaim(tmp_path, {"seed": 2}, start_over=True) as claim:
        assert not claim.is_resumed
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, ".run.json"]


def test_other_files_are_refused_and_stay(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / ".DS_Store").touch()
    for start_over in (False, True):
        with pytest.raises(GeaauError, match=r"new or empty folder.*got '.*' with 'thesis\.txt'"):
            FolderClaim(tmp_path, {}, start_over=start_over)
    FolderClaim(tmp_path, {}, may_hold=("thesis.txt",)).release()
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(GeaauError, match="must be a folder, got the file"):
        FolderClaim(tmp_path / "thesis.txt", {})


@pytest.mark.parametrize("content", ["no json", "[1]", "7"])
def test_a_damaged_record_is_one_line(tmp_path, content):
    (tmp_path / ".run.json").write_text(content)
    with pytest.raises(GeaauError, match="Cannot read the settings in") as caught:
        FolderClaim(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_claimed_folder_can_be_removed(tmp_path):
    claim = FolderClaim(tmp_path / "run", {})
    (tmp_path / "run" / "rows").touch()
    claim.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(GeaauError, match="Cannot write to .*Permission denied"):
            FolderClaim(tmp_path / "run", {})
    finally:
        tmp_path.chmod(0o700)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail():
        with whole_file(path) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(ValueError, match="Out of range float"):
        write_json({"value": float("nan")}, path)
    assert path.read_text() == "old"


def test_a_lock_needs_no_settings_and_leaves_nothing(tmp_path):
    folder = tmp_path / "new" / "folder"
    with FolderLock(folder, content="pictures") as lock:
        assert lock.is_empty
        (folder / "a.png").touch()
        assert not lock.is_empty
        with pytest.raises(TableError, match="Another process is writing pictures to"):
            FolderLock(folder, content="pictures", error=TableError)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "/proc/hf_geaau"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(GeaauError, match="must be a folder|Cannot write to") as caught:
        FolderLock(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_whole_file_names_the_file(tmp_path):
    def fill(part):
        part.unlink()
        part.symlink_to("/dev/full")
        part.write_text("x")

    for path in (tmp_path / "none" / "note.txt", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"(No such file|too long).*(note\.txt|xxx)'$"), whole_file(path):
            pass
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match=r"No space left on device: '.*note\.txt'$"):  # noqa: SIM117
            with whole_file(tmp_path / "note.txt") as part:
                fill(part)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_a_spool_is_a_sequence(count):
    items = [f"{number} \udcff\n" for number in range(count)]
    spool = Spool(str, str, items)
    assert len(spool) == count
    assert list(spool) == items
    assert spool == items and spool[1:-1] == items[1:-1] and list(reversed(spool)) == items[::-1]
    assert spool != [*items, "more"] and spool != [*items[:-1], "other"]
    for index in (-count - 1, count):
        with pytest.raises(IndexError):
            spool[index]
    spool.append("last")
    assert spool[-1] == spool[count] == "last"


def test_a_spool_keeps_what_json_cannot_express():
    items = [object() if number % 3 else number for number in range(2 * BLOCK)]
    spool = Spool(lambda item: item if isinstance(item, int) else None, int, items)
    assert all(mine is theirs or mine == theirs for mine, theirs in zip(spool, items, strict=True))


def test_a_full_disk_under_a_spool_is_one_line(monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: Path("/dev/full").open("w+b", 0))  # noqa: SIM115
    with pytest.raises(GeaauError, match="Cannot write a temporary file in '.*': No space left on device. Free space"):
        Spool(str, str, map(str, range(BLOCK)))


@pytest.fixture
def busy(monkeypatch):
    """Make renaming fail as on Windows where another program has the file open; return the number of tries left."""
    tries, replace = [2], Path.replace

    def refuse(part, target):
        if tries[0]:
            tries[0] -= 1
            error = PermissionError(13, "The process cannot access the file", str(part))
            error.winerror = 32
            raise error
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(files, "RETRY_AFTER_S", (0, 0, 0))
    return tries


def test_a_file_that_is_briefly_open_elsewhere_is_replaced(busy, tmp_path):
    (tmp_path / "table.csv").write_text("old")
    write_json({"new": 1}, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == '{\n "new": 1\n}\n'
    assert busy == [0]


def test_a_file_that_stays_open_elsewhere_is_named(busy, tmp_path):
    busy[0] = 99
    (tmp_path / "table.csv").write_text("old")
    with pytest.raises(FileInUseError, match=r"another program has it open; close it there: '.*table\.csv'$") as caught:
        write_json({"new": 1}, tmp_path / "table.csv")
    assert reason_of(caught.value) == "another program has it open; close it there"
    assert type(pickle.loads(pickle.dumps(caught.value))) is FileInUseError  # a worker process may raise it
    assert busy == [95]
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


def test_a_file_that_may_not_be_replaced_is_tried_once(busy, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(PermissionError, match="Permission denied") as caught:
        write_json({"new": 1}, tmp_path / "folder")
    assert not isinstance(caught.value, FileInUseError)
    assert busy == [1]


def test_a_lock_that_cannot_be_removed_while_it_is_open_is_released(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "The process cannot access the file", str(path))

    lock = FolderLock(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        lock.release()
    FolderLock(tmp_path).release()
