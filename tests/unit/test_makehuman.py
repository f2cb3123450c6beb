"""The reader of MakeHuman's files, on small files written here; the clones themselves are not needed."""

from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from benchmarks import makehuman
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.expressions import AU_SHAPES
from hf_geaau.synthetic.shapes import CENTRAL_SHAPES, SIDED_SHAPES


def test_the_base_mesh_has_triangles_by_group(tmp_path):
    (tmp_path / "base.obj").write_text(
        "# a quad of the body and a triangle of an eye\n"
        + "".join(f"v {x} {y} 0\n" for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)))
        + "vt 0.25 0.5\nvt 0.75 0.5\ng body\nf 1/1 2/2 3/2 4/1\ng helper-l-eye\nf 1/1 2/2 4/1\n"
    )
    base = makehuman.parse_obj(tmp_path / "base.obj", part="g")
    assert base["triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 3]]
    assert base["uv_triangles"].tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]
    assert base["materials"][base["triangle_material"]].tolist() == ["body", "body", "helper-l-eye"]
    assert base["vertices"].shape == (4, 3)


def test_a_target_moves_the_vertices_it_names(tmp_path):
    (tmp_path / "smile.target").write_text("# This is a target file\n\n2 .5 -.25 0\n0 0 1 0\n")
    assert makehuman.read_target(tmp_path / "smile.target", 3).tolist() == [[0, 1, 0], [0, 0, 0], [0.5, -0.25, 0]]


@pytest.mark.parametrize("flipped", [False, True])
def test_the_thick_end_of_a_brow_is_the_inner_one(tmp_path, flipped):
    picture = np.zeros((100, 100, 4), np.uint8)
    for column in range(10, 90):  # the upper brow grows thin to the right, the lower one to the left
        half = (90 - column) // 10
        picture[30 - half : 31 + half, column, 3] = picture[70 - half : 71 + half, 99 - column, 3] = 255
    Image.fromarray(picture[:, ::-1] if flipped else picture).save(tmp_path / "brow.png")
    brow, (inner, outer, above) = makehuman.read_brow(tmp_path / "brow.png")
    assert len(brow) == 50
    assert (inner[0] > outer[0]) == flipped
    assert abs(inner[1] - 30) < 1
    assert inner[0] == above[0]
    assert above[1] < inner[1]


def test_faces_are_drawn_once(tmp_path, monkeypatch):
    drawn = []

    def render(model, count, size, seed):
        drawn.append((model, count, size, seed))
        return np.full((count, size, size, 3), 7, np.uint8), np.full((count, 18), -1, np.float32)

    monkeypatch.setattr(makehuman, "render", render)
    monkeypatch.setattr(makehuman, "MakeHuman", lambda *clones: Mock(face_model=lambda: clones))
    for _ in range(2):
        crops, labels = makehuman.third_rig_faces(tmp_path / "a", tmp_path / "b", tmp_path / "kept", count=3)
        assert crops.shape == (3, 128, 128, 3)
        assert (labels == -1).all()
    assert drawn == [((tmp_path / "a", tmp_path / "b"), 3, 128, makehuman.SEED)]


def test_every_shape_of_an_action_unit_is_there_unless_the_unit_is_left_out():
    assert makehuman.SIDED.keys() <= set(SIDED_SHAPES)
    assert makehuman.CENTRAL.keys() <= set(CENTRAL_SHAPES)
    known = makehuman.SIDED.keys() | makehuman.CENTRAL.keys()
    for number in ACTION_UNITS:
        strongest = max(AU_SHAPES[number], key=lambda part: part[1])[0]
        assert (strongest in known) == (number not in makehuman.WITHOUT_SHAPE), number
    assert len(set(makehuman.LANDMARKS)) == 68
