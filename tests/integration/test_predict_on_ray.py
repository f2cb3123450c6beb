"""Photos and videos on a real Ray cluster of two nodes on this machine: the rows of one process, whatever is killed."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hf_geaau.distributed as distributed
from hf_geaau.backends import load_analyzer
from hf_geaau.distributed import Job, Unit, do_unit, joined, predict_on_ray
from hf_geaau.errors import MissingExtraError, TableError
from hf_geaau.video.run import predict_to_table
from hf_geaau.video.stream import Settings
from hf_geaau.video.tables import read_table
from tests.clips import walking, write_clip

ROOT = Path(__file__).parents[2]
FACES = ROOT / "examples" / "faces.parquet"


@pytest.fixture(scope="module")
def analyzer():
    return load_analyzer(backend="onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twelve rendered faces, one of which is broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(pd.read_parquet(FACES)["image"][:12]):
        face = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        face.resize((300, 300)).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes(b"\x89PNG broken")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four seconds of a portrait that walks, at 10 frames/s."""
    portrait = pytest.importorskip("skimage.data", reason="needs scikit-image, which carries the photo").astronaut()
    return write_clip(
        tmp_path_factory.mktemp("clips") / "walk.mp4", walking(portrait[:300, 80:380], 40, step=1), fps=10
    )


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one worker each, besides a head for Ray Data's own tasks."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def rows_of(path):
    table, _ = read_table(path)
    return table.sort_values(["source", "frame", "face"]).reset_index(drop=True)


def one_machine(analyzer, inputs, folder, settings=None):
    predict_to_table(inputs, folder / "one.parquet", analyzer, settings or Settings())
    return rows_of(folder / "one.parquet")


def run_units(inputs, folder, analyzer, *, range_s=600.0, settings=None, photos=256):
    """Do on this process what the actors do."""
    job = Job(folder, settings or Settings(), {}, range_s)
    for name in (distributed.SOURCES, distributed.RANGES):
        (folder / name).mkdir(parents=True, exist_ok=True)
    report, _, _ = distributed._write_plan(inputs, folder / distributed.PLAN, photos, ("image", None))
    for row in pd.read_parquet(folder / distributed.PLAN).to_dict("records"):
        for unit in distributed._divided(row, job):
            do_unit(Unit.from_row(unit), job, analyzer)
    distributed._join_videos(job)
    return distributed._concluded(job, report)


# Units, without Ray.


def test_units_give_the_rows_of_one_machine(analyzer, photos, clip, tmp_path):
    report = run_units([photos, clip], tmp_path / "out.parquet", analyzer, photos=5)
    pd.testing.assert_frame_equal(rows_of(report.path), one_machine(analyzer, [photos, clip], tmp_path))
    assert (report.sources, report.failed) == (13, 1)
    errors = pd.read_parquet(report.errors)
    assert errors["source"].tolist() == [str(photos / "07.png")]
    assert report.problems[0].startswith(f"Cannot read '{photos / '07.png'}'")
    told = pd.read_parquet(report.path / "_sources")
    assert told["rows"].sum() == report.rows == len(rows_of(report.path))


def test_a_long_video_is_divided_and_its_faces_are_joined(analyzer, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "OVERLAP_S", 0.5)
    report = run_units([clip], tmp_path / "out.parquet", analyzer, range_s=1.0)
    found, whole = rows_of(report.path), one_machine(analyzer, [clip], tmp_path)
    assert found["frame"].tolist() == whole["frame"].tolist()
    assert found["track_id"].tolist() == whole["track_id"].tolist()
    assert np.abs(found[["xmin", "ymin"]] - whole[["xmin", "ymin"]]).to_numpy().max() < 8
    told = pd.read_parquet(report.path / "_sources")
    assert told[["rows", "frames", "tracks"]].to_numpy().tolist() == [[len(whole), 40, 1]]
    assert len(list(report.path.glob("part-*.parquet"))) == 1


def test_faces_keep_their_numbers_over_a_seam():
    def rows(frames, faces):
        return pd.DataFrame(
            [
                {"frame": frame, "track_id": track, "xmin": x, "ymin": 0.0, "xmax": x + 50, "ymax": 50.0}
                for frame in frames
                for track, x in faces.items()
            ]
        ).astype({"track_id": "Int64"})

    before, faces = joined(None, rows(range(10), {1: 0.0, 2: 200.0}), 0)
    assert faces == 2
    after, faces = joined(before, rows(range(6, 15), {1: 205.0, 2: 400.0, 3: 3.0}), faces, 10)
    assert after["frame"].min() == 10
    assert dict(zip(after["xmin"], after["track_id"], strict=True)) == {205.0: 2, 3.0: 1, 400.0: 3}
    assert faces == 3
    # Nobody was found in the last frames before the seam: whoever this range finds there is not counted twice.
    after, faces = joined(before, rows(range(11, 20), {1: 0.0}), faces, 16)
    assert (after["frame"].min(), after["track_id"].unique().tolist(), faces) == (16, [4], 4)
    after, faces = joined(after.iloc[:0], rows(range(16, 22), {1: 0.0}), faces, 20)
    assert (after["frame"].tolist(), faces) == ([20, 21], 5)


def test_pictures_in_a_table(analyzer, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [image["bytes"] for image in pd.read_parquet(FACES)["image"][:6]]
    table = pa.table({"picture": [*images[:5], b"broken"], "key": [f"face-{number}" for number in range(6)]})
    pq.write_table(table, tmp_path / "faces.parquet", row_group_size=4)
    job = Job(tmp_path / "out.parquet", Settings(), {}, 600.0)
    (job.folder / "_sources").mkdir(parents=True)
    (job.folder / "_ranges").mkdir()
    plan = job.folder / "_plan.parquet"
    report, _, count = distributed._write_plan([tmp_path / "faces.parquet"], plan, 4, ("picture", "key"))
    assert count == 2  # a row group each
    for row in pd.read_parquet(plan).to_dict("records"):
        do_unit(Unit.from_row(row), job, analyzer)
    report = distributed._concluded(job, report)
    assert set(rows_of(job.folder)["source"]) <= {f"face-{number}" for number in range(5)}
    assert pd.read_parquet(job.folder / "_sources")["source"].tolist() == [f"face-{number}" for number in range(6)]
    assert "face-5" in pd.read_parquet(report.errors)["source"].tolist()


def test_pictures_without_names_go_by_their_row(analyzer, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [image["bytes"] for image in pd.read_parquet(FACES)["image"][:4]]})
    pq.write_table(table, tmp_path / "faces.parquet", row_group_size=3)
    expected = [f"{tmp_path}/faces.parquet:{row}" for row in range(4)]
    assert run_units([tmp_path / "faces.parquet"], tmp_path / "a.parquet", analyzer).rows == 4
    assert sorted(rows_of(tmp_path / "a.parquet")["source"]) == expected
    run_units([f"file://{tmp_path}/faces.parquet"], tmp_path / "b.parquet", analyzer)
    assert sorted(rows_of(tmp_path / "b.parquet")["source"]) == [f"file://{name}" for name in expected]
    lance = pytest.importorskip("lance", reason="needs the package pylance")
    lance.write_dataset(table, tmp_path / "faces.lance", max_rows_per_file=3)
    run_units([tmp_path / "faces.lance"], tmp_path / "c.parquet", analyzer)
    assert sorted(rows_of(tmp_path / "c.parquet")["source"]) == [f"{tmp_path}/faces.lance:{row}" for row in range(4)]


def test_the_plan_of_many_inputs_takes_little_memory(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(f"{tmp_path}/{number}.jpg" for number in range(40_000)))
    tracemalloc.start()
    _, _, units = distributed._write_plan([listed], tmp_path / "plan.parquet", 256, ("image", None))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert units == 157
    assert most < 6e6  # all sources together: 13 MB


def test_addresses_that_fsspec_reads(analyzer, photos, clip, tmp_path):
    folder = f"file://{photos}"
    report = run_units([folder, f"file://{clip}", "file:///no/such"], tmp_path / "out.parquet", analyzer)
    assert distributed._duration(f"file://{clip}") == distributed._duration(str(clip)) == 4.0
    found, whole = rows_of(report.path), one_machine(analyzer, [photos, clip], tmp_path)
    assert found["source"].str.startswith("file:///").all()
    pd.testing.assert_frame_equal(found.drop(columns="source"), whole.drop(columns="source"))
    assert any("Found no photo, video or table at 'file:///no/such'" in line for line in report.problems)


def test_a_photo_that_ends_workers_fails_alone(analyzer, photos, tmp_path, monkeypatch):
    class Ended(BaseException):
        pass

    real = distributed.predict_to_table

    def deadly(sources, *args, **settings):
        if any(source.location.endswith("03.png") for source in sources):
            raise Ended
        return real(sources, *args, **settings)

    monkeypatch.setattr(distributed, "predict_to_table", deadly)
    for _ in range(distributed.TRIES + 1):
        with pytest.raises(Ended):
            run_units([photos], tmp_path / "out.parquet", analyzer, photos=12)
    report = run_units([photos], tmp_path / "out.parquet", analyzer, photos=12)
    errors = pd.read_parquet(report.errors).set_index("source")["problem"]
    assert set(errors.index) == {str(photos / "03.png"), str(photos / "07.png")}
    assert errors[str(photos / "03.png")].startswith("It ended 3 workers that tried to analyze it.")
    assert len(rows_of(report.path)) == 10


class Killed(BaseException):
    """What ends a worker or the driver at once."""


def test_a_worker_that_is_killed_before_it_reports_doubles_nothing(analyzer, photos, tmp_path, monkeypatch):
    real = distributed._write_rows

    def killed(rows, path):
        monkeypatch.setattr(distributed, "_write_rows", real)
        raise Killed

    monkeypatch.setattr(distributed, "_write_rows", killed)
    with pytest.raises(Killed):  # the rows of the unit are written, its report is not
        run_units([photos], tmp_path / "out.parquet", analyzer)
    assert list((tmp_path / "out.parquet").glob("part-*.parquet"))
    report = run_units([photos], tmp_path / "out.parquet", analyzer)
    pd.testing.assert_frame_equal(rows_of(report.path), one_machine(analyzer, [photos], tmp_path))
    assert report.rows == len(rows_of(report.path))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_driver_that_is_killed_while_it_joins_loses_nothing(analyzer, clip, tmp_path, monkeypatch, kept):
    monkeypatch.setattr(distributed, "OVERLAP_S", 0.5)
    real, removed = Path.unlink, []

    def unlink(path, *args, **settings):
        if path.parent.name == "_sources" and path.name[0] != ".":  # no temporary file
            if len(removed) == kept:
                raise Killed
            removed.append(path)
        real(path, *args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            run_units([clip], tmp_path / "out.parquet", analyzer, range_s=1.0)
    before = rows_of(tmp_path / "out.parquet")
    report = run_units([clip], tmp_path / "out.parquet", analyzer, range_s=1.0)
    pd.testing.assert_frame_equal(rows_of(report.path), before)
    told = pd.read_parquet(report.path / "_sources")
    assert told[["rows", "frames", "tracks"]].to_numpy().tolist() == [[len(before), 40, 1]]


def test_kills_of_the_driver_do_not_count_against_an_input(analyzer, clip, tmp_path, monkeypatch):
    def run(job, most, units, progress):
        for row in pd.read_parquet(job.folder / distributed.PLAN).to_dict("records"):
            do_unit(Unit.from_row(row), job, analyzer)

    def killed(*args, **settings):
        raise Killed

    monkeypatch.setattr(distributed, "_cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(distributed, "_run", run)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "predict_to_table", killed)
        for _ in range(distributed.TRIES):
            with pytest.raises(Killed):
                predict_on_ray([clip], tmp_path / "out.parquet", resume=(tmp_path / "out.parquet").exists())
    report = predict_on_ray([clip], tmp_path / "out.parquet", resume=True)
    assert report.problems == []
    assert len(rows_of(report.path)) == report.rows > 0


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.jpg"], "out.csv", "The output must end in .parquet, got"),
        (["a.jpg"], "no/out.parquet", "its folder does not exist"),
        (["0"], "out.parquet", "A camera cannot be divided among workers"),
    ],
)
def test_what_cannot_run_is_refused_at_once(tmp_path, inputs, output, message):
    with pytest.raises(TableError, match=message):
        predict_on_ray(inputs, tmp_path / output)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "Connection refused"), ("no.such.host.invalid:6379", ""), ("here:there", "it is no HOST:PORT")],
)
def test_a_cluster_that_is_not_there_leaves_nothing_behind(tmp_path, photos, address, reason):
    with pytest.raises(TableError, match=f"Cannot join the Ray cluster '{address}': {reason}.*Check the address"):
        predict_on_ray([photos], tmp_path / "out.parquet", address=address)
    assert not (tmp_path / "out.parquet").exists()


def test_without_ray_a_line_says_what_to_install(tmp_path, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hf_geaau\[ray\]"'):
        predict_on_ray([photos], tmp_path / "out.parquet")


# On a cluster.


@pytest.mark.slow
def test_two_nodes_give_the_rows_of_one_machine_though_a_worker_is_killed(cluster, analyzer, photos, clip, tmp_path):
    psutil, killed = pytest.importorskip("psutil"), []

    def kill(done, total):
        for process in psutil.Process().children(recursive=True):  # other tests may have workers, too
            with contextlib.suppress(psutil.NoSuchProcess):
                if not killed and "_Worker" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)

    output = tmp_path / "out.parquet"
    report = predict_on_ray([photos, clip], output, address=cluster.address, photos=1, backend="onnx", progress=kill)
    assert killed
    pd.testing.assert_frame_equal(rows_of(output), one_machine(analyzer, [photos, clip], tmp_path))
    assert (report.sources, report.failed) == (13, 1)
    with pytest.raises(TableError, match="it exists. Continue it with --resume, or pass --overwrite"):
        predict_on_ray([photos, clip], output, address=cluster.address)
    again = predict_on_ray([photos, clip], output, photos=1, backend="onnx", resume=True)  # needs no cluster
    assert again.rows == report.rows
    with pytest.raises(TableError, match="with other settings"):
        predict_on_ray([photos], output, photos=1, resume=True)


@pytest.mark.slow
def test_a_lost_node_is_made_up_for(cluster, analyzer, photos, tmp_path):
    lost, output = [], tmp_path / "out.parquet"

    def lose(done, total):
        if not lost:
            lost.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(lost[0], allow_graceful=False)

    report = predict_on_ray([photos], output, address=cluster.address, photos=1, backend="onnx", progress=lose)
    assert lost
    pd.testing.assert_frame_equal(rows_of(output), one_machine(analyzer, [photos], tmp_path))
    assert (report.sources, report.failed) == (12, 1)


@pytest.mark.slow
def test_a_killed_driver_goes_on(analyzer, photos, clip, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    output = tmp_path / "out.parquet"
    arguments = ["predict", str(photos), str(clip), "--output", str(output), "--ray", "local", "--backend", "onnx"]
    arguments += ["--ray-photos", "1"]
    command = [sys.executable, "-m", "hf_geaau", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as driver:
        deadline = time.monotonic() + 120
        while len(list(output.glob("_sources/*.parquet"))) < 3 and driver.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert driver.poll() is None, driver.stdout.read().decode()
        os.killpg(driver.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in output.glob("_sources/*.parquet")}
    assert 3 <= len(before) < 13
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 1  # of the broken photo
    assert "1 of 13 inputs gave no result" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    pd.testing.assert_frame_equal(rows_of(output), one_machine(analyzer, [photos, clip], tmp_path))
