"""Odd names, patterns, lists and numbers: every input is a source or a problem in one line, and none ends a run."""

import math
import os
import string
import tempfile
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_geaau import errors
from hf_geaau.environ import process_count
from hf_geaau.errors import GeaauError, PhotoError
from hf_geaau.faces.photos import load_photo
from hf_geaau.video.sources import Source, find_sources
from hf_geaau.video.stream import FaceStream, Settings, SourceEnd
from hf_geaau.video.tables import TableWriter, columns, read_table
from tests.fuzz import seeds
from tests.fuzz.analyzer import BrightFace
from tests.fuzz.mutate import FIGURES, ROUNDS, is_one_line

EXAMPLES = 100
PHOTO = seeds.encoded(seeds.picture(), "PNG")
FORMULA = "=+-@\t\r"

fragments = st.one_of(
    st.sampled_from(["*", "**", "?", "[", "]", "[!a]", "[z-a]", "%04d", "%d", "%99999d", "/", ".", "~", "\0", "\n"]),
    st.sampled_from(["good.png", "numbers", "list.txt", "=1+1", "-x", "data:", ";base64,", "file:", "http:", "\udcff"]),
    st.sampled_from(["0", "٣", "²", "9" * 20, "9" * 5000, "x" * 300, "A" * 80, " ", ".mp4", ".png", ".txt", "\u202e"]),
    st.text(max_size=8), st.text(alphabet=string.printable, max_size=8),
)  # fmt: skip
texts = st.lists(fragments, min_size=1, max_size=6).map("".join)
file_names = st.binary(min_size=1, max_size=120).map(lambda name: name.translate(None, b"/\0") or b"x")


def leads_elsewhere(text: str) -> bool:
    """Return whether an input would search the whole disk or open a connection or a camera."""
    return text.startswith("/") or ".." in text or "//" in text or text.isdecimal()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("good.png", "[a]", "numbers/0001.png", "numbers/0002.png", "=1+1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(PHOTO)
    (folder / "list.txt").write_bytes(b"good.png\0numbers/%04d.png\0\xff\0*\0list.txt\0")
    return folder


def ends(found: list[Source]) -> list[SourceEnd]:
    """Run the stream, and check that every source has one end, whose error is one line."""
    items = FaceStream(BrightFace(), Settings(workers=1)).run(found)
    last = [item for item in items if isinstance(item, SourceEnd)]
    assert [end.source_index for end in last] == list(range(len(found)))
    for end in last:
        assert end.error is None or (isinstance(end.error, GeaauError) and str(end.error).isprintable()), end.error
    return last


def check_name(source: Source) -> None:
    source.name.encode()  # any table can hold it
    assert source.name[:1] not in FORMULA or not source.name
    assert source.shown.isprintable()


@settings(max_examples=EXAMPLES * ROUNDS)
@given(texts)
@example("9" * 5000)
@example("[" * 300)
@example("%0d" * 200)
def test_any_text_is_a_source_or_a_problem(folder, text):
    if leads_elsewhere(text) and text != "9" * 5000:
        return
    with chdir(folder):
        found = find_sources([text])
        assert found.sources or found.problems or not text
        assert all(problem.isprintable() for problem in found.problems), found.problems
        for source in found.sources:
            check_name(source)
        ends(found.sources)
    FIGURES["names, patterns and lists"]["found" if found.sources else "a problem in one line"] += 1


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.binary(max_size=200), st.booleans())
def test_any_list_is_read_or_refused(content, with_good):
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("good.png").write_bytes(PHOTO)
        separator = b"\0" if b"\0" in content else b"\n"
        text = os.fsdecode(content)
        if any(leads_elsewhere(line) for line in text.replace("\0", "\n").splitlines()):
            return
        Path("list.txt").write_bytes(content + separator + b"good.png" * with_good)
        found = find_sources(["list.txt"])
        assert all(problem.isprintable() for problem in found.problems), found.problems
        good = [end for end in ends(found.sources) if end.source.location == "good.png"]
        assert not with_good or good
        assert all(end.error is None for end in good)
    FIGURES["names, patterns and lists"]["found" if found.sources else "a problem in one line"] += 1


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.lists(file_names, min_size=1, max_size=5, unique=True))
def test_files_of_any_name_are_read(names):
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.fsencode(folder) + b"/" + name for name in names if name not in (b".", b"..")]
        for path in paths:
            Path(os.fsdecode(path)).write_bytes(PHOTO)
        Path(folder, ".list.txt").write_bytes(b"\0".join(paths) + b"\0")
        listed = find_sources([Path(folder, ".list.txt")])
        assert [os.fsencode(source.location) for source in listed.sources] == paths
        found = find_sources([folder]).sources
        assert len(found) == sum(not name.startswith(b".") for name in names)
        for source in (*listed.sources, *found):
            check_name(source)
        assert all(end.error is None for end in ends([*listed.sources, *found]))
    FIGURES["file names"]["read"] += len(names)


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.one_of(texts, st.binary(max_size=100), st.dictionaries(st.sampled_from(["bytes", "path"]), texts)))
def test_what_is_no_photo_is_refused_in_one_line(source):
    if isinstance(source, str) and leads_elsewhere(source):
        return
    try:
        load_photo(source)
    except PhotoError as error:
        assert is_one_line(str(error)), error


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@settings(max_examples=EXAMPLES // 5 * ROUNDS)
@given(st.lists(st.one_of(file_names.map(os.fsdecode), st.sampled_from(["NA", "0001", "1e5", "a\rb", '"', "null"])),
                min_size=1, max_size=5))  # fmt: skip
def test_tables_keep_every_name(suffix, names):
    written = [Source("photo", name).name for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table{suffix}")
        writer = TableWriter(path, columns(["AU12"]), {})
        writer.add([{"source": name, "frame": 0, "face": 0, "AU12": 0.5, "AU12_present": 1} for name in written])
        writer.commit({})
        writer.finish()
        writer.close()
        assert list(read_table(path)[0]["source"]) == written
    FIGURES["names in tables"]["read back"] += len(names)


numbers = st.one_of(st.floats(), st.integers(-3, 3), st.sampled_from([math.inf, 1e-300, 1e300, 2**63, -0.0]))


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.fixed_dictionaries({}, optional={
    "every": st.integers(-2, 2**70), "fps": numbers, "smooth_s": numbers, "start_s": numbers, "end_s": numbers,
    "detect_every": st.integers(-2, 2**70),
}))  # fmt: skip
def test_any_number_is_refused_or_leads_to_an_end(values):
    try:
        chosen = Settings(workers=1, **values)
    except ValueError as error:
        assert is_one_line(str(error)), error
        return
    frames = [np.full((8, 8, 3), number, np.uint8) for number in (0, 100, 200)]
    items = list(FaceStream(BrightFace(), chosen).run([Source("video", frames)]))
    times = [item.time_s for item in items[:-1]]
    assert isinstance(items[-1], SourceEnd)
    assert items[-1].error is None or is_one_line(str(items[-1].error)), items[-1].error
    assert np.isfinite(times).all()
    assert (np.diff(times) > 0).all()


@pytest.mark.skipif(not hasattr(errors, "ProcessError"), reason="the environment is not checked")
@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.dictionaries(
    st.sampled_from(["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE"]),
    st.one_of(st.integers(-2, 5).map(str), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
              st.just("9" * 5000)),
))  # fmt: skip
def test_any_environment_gives_a_process_or_one_line(environment):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            count = process_count()
        except GeaauError as error:
            assert is_one_line(str(error)), error
            return
    assert count >= 1
