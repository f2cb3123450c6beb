"""Damaged videos: frames in order with growing times, or one line; in time, and at the cost of no other source."""

from pathlib import Path

import numpy as np
import pytest

from hf_geaau.errors import GeaauError, VideoError
from hf_geaau.video.decoding import Frame, VideoReader
from hf_geaau.video.sources import Source, find_sources
from hf_geaau.video.stream import FaceStream, Settings, SourceEnd
from tests.clips import numbered, write_clip
from tests.fuzz import seeds
from tests.fuzz.analyzer import BrightFace
from tests.fuzz.mutate import FIGURES, ROUNDS, is_one_line, mutant, watched

pytest.importorskip("av", reason="PyAV is not installed")

COUNT, GROUP, LIMIT_S = 140, 40, 10.0


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return seeds.videos(tmp_path_factory.mktemp("videos"))


def read(video: Path | bytes) -> tuple[list[Frame], list[str]]:
    reader = VideoReader(video)
    try:
        return list(reader), reader.notes
    finally:
        reader.close()


def test_every_seed_is_read(intact):
    for suffix, content in intact.items():
        frames, notes = read(content)
        assert [frame.number for frame in frames] == list(range(8))
        assert notes == (["its frames are interlaced, and were deinterlaced"] if suffix == "m2ts" else [])


def test_joined_recordings_with_other_streams(intact):
    padding = b"\x47\x1f\xff\x10" + bytes(184)  # more than what FFmpeg looks at before the first frame
    with pytest.raises(VideoError, match="Cannot decode a single frame of the bytes"):
        read(intact["ts"] + padding * (6 * 2**20 // 188) + intact["m2ts"])


def test_a_clock_that_jumps_ahead_is_noted(tmp_path):
    path = write_clip(tmp_path / "jump.mkv", numbered(3), times=[0.0, 0.04, 10_000.0])
    frames, notes = read(path)
    assert [frame.time_s for frame in frames] == [0.0, 0.04, 10_000.0]
    assert notes == ["its clock jumps ahead by 10000 s, so its times may be wrong"]


def test_mutants_give_frames_or_one_line(intact, tmp_path):
    for number in range(COUNT * ROUNDS):
        story, content = mutant(intact, number)
        path = tmp_path / f"video.{list(intact)[number % len(intact)]}"
        path.write_bytes(content)
        video = path if number % 2 else content
        with watched(f"video {story}", LIMIT_S):
            try:
                frames, notes = read(video)
            except VideoError as error:
                assert is_one_line(str(error), path.name if number % 2 else "the bytes"), f"{story}: {error}"
                FIGURES["videos"]["refused"] += 1
                continue
        times, numbers = ([getattr(frame, name) for frame in frames] for name in ("time_s", "number"))
        assert np.isfinite(times).all(), story
        assert (np.diff(times) > 0).all(), story
        assert (np.diff(numbers) > 0).all(), story
        assert all(frame.image.dtype == np.uint8 and frame.image.ndim == 3 for frame in frames), story
        assert all(is_one_line(note) for note in notes), f"{story}: {notes}"
        FIGURES["videos"]["read with a note" if notes else "read"] += 1


@pytest.mark.parametrize("group", range(ROUNDS))
def test_mutants_do_not_end_the_work_on_others(intact, tmp_path, group):
    names = list(intact)
    for number in range(GROUP):
        _, content = mutant(intact, 10**6 + group * GROUP + number)
        (tmp_path / f"{number:02d} mutant.{names[number % len(names)]}").write_bytes(content)
    for number, name in enumerate(names):
        (tmp_path / f"{5 * number:02d} good.{name}").write_bytes(intact[name])
    found = find_sources([tmp_path]).sources
    assert len(found) == GROUP + len(names)
    with watched(f"videos in a folder, group {group}", 60.0):
        items = list(FaceStream(BrightFace(), Settings(workers=2)).run(found))
    ends = [item for item in items if isinstance(item, SourceEnd)]
    assert [end.source_index for end in ends] == list(range(len(found)))
    for end in ends:
        FIGURES["videos among good ones"]["read" if end.error is None else "refused"] += 1
        assert end.error is None or (isinstance(end.error, GeaauError) and is_one_line(str(end.error))), end
        assert "good" not in str(end.source.location) or (end.error is None and end.decoded == 8), end


@pytest.mark.parametrize("number", ["99999", "9" * 30])
def test_cameras_that_cannot_be(number):
    (end,) = FaceStream(BrightFace(), Settings(workers=1)).run([Source("webcam", number)])
    assert isinstance(end.error, VideoError)
    assert is_one_line(str(end.error))
