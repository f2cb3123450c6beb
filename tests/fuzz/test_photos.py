"""Damaged photos: each is read or refused in one line, in time, and costs no other photo its result."""

import numpy as np
import pytest

from hf_geaau.errors import GeaauError, PhotoError
from hf_geaau.faces.photos import load_photo
from hf_geaau.video.sources import find_sources
from hf_geaau.video.stream import FaceStream, Settings, SourceEnd
from tests.fuzz import seeds
from tests.fuzz.analyzer import BrightFace
from tests.fuzz.mutate import FIGURES, ROUNDS, is_one_line, mutant, watched

COUNT, LIMIT_S = 2000, 5.0
GROUP, GOOD = 200, 10


@pytest.fixture(scope="module")
def intact():
    return seeds.photos()


def test_every_seed_is_read(intact):
    assert all(load_photo(content).image.mode == "RGB" for content in intact.values())


def test_mutants_are_read_or_refused_in_one_line(intact):
    outcomes = FIGURES["photos"]
    for number in range(COUNT * ROUNDS):
        story, content = mutant(intact, number)
        with watched(f"photo {story}", LIMIT_S):
            try:
                image, notes = load_photo(content)
            except PhotoError as error:
                assert is_one_line(str(error), "the bytes"), f"{story}: {error}"
                outcomes["refused"] += 1
                continue
        assert image.mode == "RGB", story
        assert np.asarray(image).size, story
        assert all(is_one_line(note) for note in notes), f"{story}: {notes}"
        assert not image.getexif(), story  # nobody turns it again
        outcomes["read with a note" if notes else "read"] += 1


@pytest.mark.parametrize("group", range(ROUNDS))
def test_a_folder_with_mutants_gives_every_good_photo_its_result(intact, tmp_path, group):
    for number in range(GROUP):
        _, content = mutant(intact, 10**6 + group * GROUP + number)
        (tmp_path / f"{number:04d} mutant.jpg").write_bytes(content)
    for number in range(GOOD):
        path = tmp_path / f"{GROUP // GOOD * number:04d} good.png"
        path.write_bytes(seeds.encoded(seeds.picture(number), "PNG"))
    found = find_sources([tmp_path]).sources
    assert len(found) == GROUP + GOOD
    with watched(f"photos in a folder, group {group}", 60.0):
        items = list(FaceStream(BrightFace(), Settings(workers=2)).run(found))
    ends = [item for item in items if isinstance(item, SourceEnd)]
    assert [end.source_index for end in ends] == list(range(len(found)))
    for end in ends:
        FIGURES["photos among good ones"]["read" if end.error is None else "refused"] += 1
        assert end.error is None or (isinstance(end.error, GeaauError) and is_one_line(str(end.error))), end
    seen = {item.source.location: item.faces for item in items if not isinstance(item, SourceEnd)}
    good = [source.location for source in found if "good" in source.location]
    assert len(good) == GOOD
    assert all(len(seen[location]) == 1 for location in good)
