"""FEC: ragged rows, the vote, photos by URL; and the download of these photos, from a server on this machine."""

import csv
import errno
import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from hf_geaau.data import DatasetNotes, fec, load, write_example
from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning

TRAIN, TEST = fec.CSV_FILES["train"], fec.CSV_FILES["test"]
BOXES = ((0.1, 0.5, 0.2, 0.8), (0.2, 0.6, 0.3, 0.9), (0.3, 0.7, 0.4, 1.0))  # left, right, top, bottom


def row(
    votes,
    *,
    kind="TWO_CLASS_TRIPLET",
    boxes=BOXES,
    urls=("http://a.example/1.jpg", "http://a.example/2.jpg", "http://a.example/3.jpg"),
):
    cells = [cell for url, box in zip(urls, boxes, strict=True) for cell in (url, *box)] + [kind]
    for annotator, vote in enumerate(votes):
        cells += [f"annotator_{annotator}", vote]
    return cells


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read(tmp_path, rows, agreement=2 / 3, policy="raise"):
    return fec.read_triplets(write(tmp_path / TRAIN, rows), "train", agreement, DatasetNotes(policy))


def test_rows_of_different_length_are_all_read_in_order(tmp_path):
    triplets = read(tmp_path, [row([1] * 6), row([2] * 9), row([3] * 7), row([3] * 6)])
    assert triplets.triplet_ids == ["train-1", "train-2", "train-3", "train-4"]
    assert triplets.votes.tolist() == [6, 9, 7, 6]


@pytest.mark.parametrize(("odd", "order"), [(1, "231"), (2, "132"), (3, "123")])
def test_the_odd_one_comes_last(tmp_path, odd, order):
    triplets = read(tmp_path, [row([odd] * 6)])
    assert [url[-5] for url in triplets.images[0]] == list(order)
    left_top = [[BOXES[int(number) - 1][0], BOXES[int(number) - 1][2]] for number in order]
    np.testing.assert_allclose(triplets.boxes[0][:, :2], left_top, rtol=1e-6)


def test_boxes_come_as_left_top_right_bottom(tmp_path):
    np.testing.assert_allclose(read(tmp_path, [row([3] * 6)]).boxes[0][0], [0.1, 0.2, 0.5, 0.8], rtol=1e-6)


def test_two_thirds_must_agree_unless_told_otherwise(tmp_path):
    rows = [row([3, 3, 3, 3, 1, 2]), row([3, 3, 3, 1, 1, 2]), row([1, 1, 1, 2, 2, 2]), row([2, 2, 2, 2, 1, 1, 3])]
    assert read(tmp_path, rows).triplet_ids == ["train-1"]
    np.testing.assert_allclose(read(tmp_path, rows).agreement, [4 / 6])
    assert read(tmp_path, rows, agreement=0.5).triplet_ids == ["train-1", "train-4"]  # no tie, no half
    with pytest.raises(DatasetError, match="`agreement` must be from 0 to 1, got 67"):
        fec.FEC(agreement=67)


def test_the_type_decides_the_margin(tmp_path):
    folder = write_example("fec", tmp_path / "fec", size=32)
    url = fec.read_urls(folder)[0]
    write(folder / TRAIN, [row([3] * 6, kind=kind, urls=[url] * 3) for kind in fec.TYPES])
    data = load("fec", folder, split="train", cache_dir=tmp_path / "cache")
    assert data["triplet_type"][:] == [0, 1, 2]
    np.testing.assert_allclose(data["margin"][:], [0.1, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row([3] * 4), r"A triplet must have at least 6 votes, got 4 in .*train-public.csv, line 2. Fetch the file"),
        (
            row([3] * 6, boxes=(BOXES[0], (0.6, 0.2, 0.3, 0.9), BOXES[2])),
            r"A face box must be left < right.* got 0.6, 0.2, 0.3, 0.9 for image 2 .* line 2\. .*problems=\"warn\"",
        ),
        (row([3] * 6, boxes=(BOXES[0], BOXES[1], (30, 70, 40, 90))), "got 30, 70, 40, 90 for image 3"),
        (row([3] * 6, boxes=(("", *BOXES[0][1:]), *BOXES[1:])), "got no number, 0.5, 0.2, 0.8 for image 1"),
        (row([3, 3, 3, 3, 3, 0]), "A vote must be 1, 2 or 3, got another in 3, 3, 3, 3, 3, 0 in .* line 2"),
        (row([3, 3, 3, 3, 3, "x"]), "A vote must be 1, 2 or 3, got another in 3, 3, 3, 3, 3, no number"),
        (row([3] * 6, kind="ODD"), "A triplet type must be one of ONE_CLASS_TRIPLET.*, got 'ODD' in .* line 2"),
        (row([3] * 6)[:9], "A row must have 16 columns and pairs of annotator and vote, got 9 columns in .* line 2"),
        (row([3] * 6)[:-1], "pairs of annotator and vote, got 27 columns in .* line 2"),
    ],
)  # fmt: skip
def test_a_bad_row_is_an_error_with_its_line_or_left_out(tmp_path, bad, message):
    rows = [row([1] * 6), bad, row([2] * 6)]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, rows)
    notes = DatasetNotes("warn")
    triplets = fec.read_triplets(write(tmp_path / TRAIN, rows), "train", 2 / 3, notes)
    assert triplets.triplet_ids == ["train-1", "train-3"]
    assert len(notes.entries) == 1


def test_a_comma_in_a_quoted_url_is_no_column(tmp_path):
    urls = ("http://a.example/1,2.jpg", "http://a.example/2.jpg", "http://a.example/3.jpg")
    assert read(tmp_path, [row([3] * 6, urls=urls)]).images[0][0] == urls[0]


def test_no_usable_row(tmp_path):
    (tmp_path / TRAIN).write_text("\n\n")
    with pytest.raises(DatasetError, match=r"No usable row of triplets in .*train-public.csv"):
        fec.read_triplets(tmp_path / TRAIN, "train", 2 / 3, DatasetNotes())


def test_the_example_loads(tmp_path):
    folder = write_example("fec", tmp_path / "fec", size=32)
    data = load("fec", folder, cache_dir=tmp_path / "cache")
    assert {name: len(split) for name, split in data.items()} == {"train": 11, "test": 5}  # the last rows disagree
    first = data["train"][0]
    assert [image.size[1] for image in first["images"]] == [32] * 3
    assert {line.count(",") for line in (folder / TRAIN).read_text().splitlines()} == {27, 29}
    both = load("fec", folder, fold=None, cache_dir=tmp_path / "cache")
    assert len(both["train"]) == 16
    two = load("fec", folder, num_proc=2, cache_dir=tmp_path / "cache2")
    assert two["train"]["triplet_id"][:] == data["train"]["triplet_id"][:]
    stream = load("fec", folder, split="train", streaming=True)
    assert next(iter(stream))["triplet_id"] == first["triplet_id"]
    with pytest.raises(DatasetError, match="`fold` must be 1 for FEC, got 2"):
        load("fec", folder, fold=2)


def test_photos_may_keep_their_own_names_where_these_are_unique(tmp_path):
    folder = write_example("fec", tmp_path / "fec", size=32, own_names=True)
    assert len(load("fec", folder, split="train", cache_dir=tmp_path / "cache")) == 11
    urls = ["http://a.example/x/1.jpg", "http://a.example/y/1.jpg", "http://a.example/2.jpg"]
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    found = fec.local_paths(tmp_path, [np.array(urls, dtype=object)])
    assert [found[url] for url in urls] == [None, None, str(tmp_path / "2.jpg")]


def test_missing_photos_are_counted(tmp_path):
    folder = write_example("fec", tmp_path / "fec", size=32, missing_photos=1)
    for _ in range(2):  # the second time a cache is there
        with pytest.warns(
            DatasetWarning, match=r"\d+ of 16 triplets of FEC lack a photo \(2 of 18 photos are missing\).*download-fec"
        ):
            data = load("fec", folder, cache_dir=tmp_path / "cache")
    assert 0 < len(data["train"]) < 11


def test_missing_things_are_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such folder.*example-data fec"):
        load("fec", tmp_path / "no")
    with pytest.raises(DatasetNotFoundError, match=r"neither faceexp-comparison-data-train-public.csv nor"):
        load("fec", tmp_path)
    write(tmp_path / TRAIN, [row([3] * 6)])
    with pytest.raises(DatasetNotFoundError, match=r"no folder images; fetch the photos with `hf-geaau download-fec"):
        load("fec", tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no triplet with all three photos in images"):
        load("fec", tmp_path, fold=None, cache_dir=tmp_path / "cache")


# The download.


def jpeg():
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "JPEG")
    return content.getvalue()


class Photos(BaseHTTPRequestHandler):
    """Answers by path: /ok…, /gone…, /busy… (twice 503, then a photo), /cut…, /page…, /moved…, /slow…."""

    seen: Counter = Counter()
    agents: set = set()
    at_once = 0
    most_at_once = 0
    lock = threading.Lock()

    def do_GET(self):
        kind = self.path.strip("/")
        with self.lock:
            Photos.seen[kind] += 1
            Photos.agents.add(self.headers["User-Agent"])
            Photos.at_once += 1
            Photos.most_at_once = max(Photos.most_at_once, Photos.at_once)
        try:
            self.answer(kind)
        finally:
            with self.lock:
                Photos.at_once -= 1

    def answer(self, kind):
        if kind.startswith("slow"):
            time.sleep(1.0)
        if kind.startswith("gone"):
            return self.send_error(404)
        if kind.startswith("busy") and Photos.seen[kind] < 3:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if kind.startswith("moved"):
            self.send_response(302)
            self.send_header("Location", "/photo_unavailable.jpg")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = b"<html>no photo</html>" if kind.startswith("page") else jpeg()
        if kind.startswith("cut"):
            content = content[: len(content) // 2]
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Photos.seen, Photos.agents, Photos.most_at_once = Counter(), set(), 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Photos)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def tables(folder, base, *names):
    rows = [row([3] * 6, urls=[f"{base}/{name}"] * 3) for name in names]
    write(folder / TRAIN, rows)
    return folder


QUICK = {"rate": 1000.0, "back_off": 0.01, "timeout": 5.0}


def test_a_download_fetches_retries_and_reports(tmp_path, server):
    names = ["ok.jpg", "gone.jpg", "busy.jpg", "cut.jpg", "page.jpg", "moved.jpg"]
    steps = []
    report = fec.download_fec(
        tables(tmp_path, server, *names), progress=lambda *step: steps.append(step), user_agent="me", **QUICK
    )
    assert (report.fetched, report.present, len(report.dead)) == (2, 0, 4)
    assert sorted(steps) == [(done, 6) for done in range(1, 7)]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(
        fec.image_name(f"{server}/{name}") for name in ("ok.jpg", "busy.jpg")
    )
    assert Photos.seen["busy.jpg"] == 3
    assert Photos.agents == {"me"}
    with (tmp_path / "dead_links.csv").open(newline="") as file:
        rows = {line["url"].rpartition("/")[2]: line for line in csv.DictReader(file)}
    assert {name: line["reason"] for name, line in rows.items()} == {
        "gone.jpg": "no such photo",
        "cut.jpg": "content is no complete image",
        "page.jpg": "content is no complete image",
        "moved.jpg": "photo no longer available",
    }
    assert rows["gone.jpg"]["status"] == "404"
    assert all(line["final"] == "yes" for line in rows.values())


def test_a_second_run_requests_nothing_again(tmp_path, server):
    fec.download_fec(tables(tmp_path, server, "ok.jpg", "gone.jpg"), **QUICK)
    tables(tmp_path, server, "ok.jpg", "gone.jpg", "ok2.jpg")
    report = fec.download_fec(tmp_path, **QUICK)
    assert (report.fetched, report.present, len(report.dead)) == (1, 1, 1)
    assert Photos.seen == {"ok.jpg": 1, "gone.jpg": 1, "ok2.jpg": 1}
    fec.download_fec(tmp_path, retry_dead=True, **QUICK)
    assert Photos.seen["gone.jpg"] == 2


def test_a_temporary_failure_is_tried_again_by_the_next_run(tmp_path, server):
    quick = QUICK | {"timeout": 0.2}
    report = fec.download_fec(tables(tmp_path, server, "slow.jpg"), retries=1, **quick)
    assert [(link.reason, link.attempts, link.final) for link in report.dead] == [("no answer in 0.2 s", 2, "no")]
    assert fec.download_fec(tmp_path, **QUICK).fetched == 1


def test_nobody_there(tmp_path):
    report = fec.download_fec(tables(tmp_path, "http://127.0.0.1:9", "x.jpg"), retries=0, **QUICK)
    assert [(link.reason, link.final) for link in report.dead] == [("ConnectError", "no")]
    write(tmp_path / TRAIN, [row([3] * 6, urls=["ftp://a.example/1.jpg"] * 3)])
    assert fec.download_fec(tmp_path, **QUICK).dead[0].reason == "no http address"


def test_a_download_is_polite(tmp_path, server):
    names = [f"ok{number}.jpg" for number in range(12)]
    start = time.monotonic()
    fec.download_fec(tables(tmp_path, server, *names), workers=3, rate=20.0)
    assert time.monotonic() - start > 11 / 20  # 12 requests have 11 pauses
    assert Photos.most_at_once <= 3


def test_an_interrupted_download_resumes(tmp_path, server):
    names = [f"ok{number}.jpg" for number in range(20)]

    def stop(done, _):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fec.download_fec(tables(tmp_path, server, *names), workers=1, progress=stop, **QUICK)
    there = len(list((tmp_path / "images").iterdir()))
    assert 5 <= there < 20
    report = fec.download_fec(tmp_path, **QUICK)
    assert (report.fetched, report.present) == (20 - there, there)
    assert max(Photos.seen.values()) <= 2
    assert not list((tmp_path / "images").glob(".*"))


def test_a_full_disk_is_one_line(tmp_path, server, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    tables(tmp_path, server, "ok.jpg")
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DatasetError, match=r"Disk full while saving photos to .*resumes where it stop"):
        fec.download_fec(tmp_path, **QUICK)
    assert not list((tmp_path / "images").iterdir())


def test_settings_are_checked(tmp_path):
    tables(tmp_path, "http://a.example", "1.jpg")
    with pytest.raises(DatasetError, match="`workers` must be at least 1, got 0"):
        fec.download_fec(tmp_path, workers=0)
    with pytest.raises(DatasetError, match="`rate` must be above 0, got 0"):
        fec.download_fec(tmp_path, rate=0)
    with pytest.raises(DatasetError, match="Did you mean 'retries'"):
        fec.download_fec(tmp_path, retrys=1)
    with pytest.raises(DatasetNotFoundError, match="neither faceexp"):
        fec.download_fec(tmp_path / "no")
    (tmp_path / "dead_links.csv").write_text("link\nx\n")
    with pytest.raises(DatasetError, match="Cannot read the report of dead links .*: the columns are link. Remove it"):
        fec.download_fec(tmp_path)
