"""What the comparisons of rigs and of recipe sizes share: the faces of an arm, and its scores."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cv2")

from benchmarks.rigs import RIGS, measured, subset
from hf_geaau.backends import load_analyzer
from hf_geaau.metrics import au_auc
from hf_geaau.models.loading import BUNDLED_CHECKPOINT


def renders(folder, rigs):
    """Write a folder of faces with the given rigs; the pictures hold their own path."""
    (folder / "images").mkdir(parents=True)
    names = [f"images/{i}.jpg" for i in range(len(rigs))]
    for name in names:
        (folder / name).write_text(f"{folder.name} {name}")
    people = [f"{folder.name}-{i}" for i in range(len(rigs))]
    pd.DataFrame({"file_name": names, "face_model": rigs, "subject_id": people}).to_parquet(folder / "labels.parquet")
    (folder / "render.json").write_text("{}")
    return folder


def test_an_arm_takes_equally_many_faces_of_each_rig_wherever_they_lie(tmp_path):
    one, other = renders(tmp_path / "one", [RIGS[0]] * 3), renders(tmp_path / "other", [RIGS[1], RIGS[0], RIGS[1]])
    both = subset([one, other], tmp_path / "both", list(RIGS), 4)
    table = pd.read_parquet(both / "labels.parquet")
    assert table["face_model"].tolist() == [RIGS[0], RIGS[0], RIGS[1], RIGS[1]]
    assert [(both / name).read_text() for name in table["file_name"]] == [
        "one images/0.jpg", "one images/1.jpg", "other images/0.jpg", "other images/2.jpg",
    ]  # fmt: skip
    every = pd.read_parquet(subset([one, other], tmp_path / "every", [RIGS[0]]) / "labels.parquet")
    assert len(every) == 4
    with pytest.raises(SystemExit, match=r"must hold 3 faces of each of .*, got \[3, 2\]"):
        subset([one, other], tmp_path / "more", list(RIGS), 6)


def test_renders_are_not_mistaken_for_others(tmp_path):
    one, other = renders(tmp_path / "one", list(RIGS)), renders(tmp_path / "two" / "one", list(RIGS))
    with pytest.raises(SystemExit, match=r"share names of people\. Render them with different seeds\."):
        subset([one, other], tmp_path / "both", list(RIGS))
    kept = subset([one], tmp_path / "kept", list(RIGS), 2)
    assert subset([one], tmp_path / "kept", list(RIGS), 2) == kept
    with pytest.raises(SystemExit, match=r"kept holds faces of .*one\. Choose another --output\."):
        subset([other], tmp_path / "kept", list(RIGS), 2)


def test_a_checkpoint_is_scored_on_the_aus_that_makehuman_shows():
    labels = np.zeros((8, 18), np.float32)
    labels[::2], labels[:, 4] = 1, -1  # no AU06
    crops = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), np.uint8)
    found = measured(BUNDLED_CHECKPOINT, {}, None, (crops, labels))
    probabilities = load_analyzer(None, backend="torch").runner.predict(list(crops)).probabilities
    auc = au_auc(labels, probabilities)["auc"]
    assert found == {"MakeHuman": pytest.approx(np.delete(auc, 4).mean(), abs=1e-6)}
