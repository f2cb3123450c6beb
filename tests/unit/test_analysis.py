"""Main speaker, baseline, summary and events."""

import numpy as np
import pandas as pd
import pytest

from hf_geaau.errors import TableError
from hf_geaau.tables import join_events, main_speaker, subtract_baseline, summarize
from hf_geaau.video.tables import read_events, read_table, write_table


def table(*rows, source="clip.mp4"):
    """Rows of (time, track, probability of AU12), present from .5 on."""
    return pd.DataFrame(
        [
            {
                "source": source,
                "frame": 0 if time is None else round(time * 100),
                "time_s": time,
                "track_id": track,
                "xmin": 0.0,
                "ymin": 0.0,
                "xmax": 10.0,
                "ymax": 10.0 + probability,
                "score": 0.9,
                "AU12": probability,
                "AU12_present": int(probability >= 0.5),
                "AU12_intensity": 5 * probability,
            }
            for time, track, probability in rows
        ]
    )


def test_the_longest_track_is_the_main_speaker():
    rows = table((0.0, 1, 0.1), (0.0, 2, 0.9), (0.1, 1, 0.1), (0.2, 3, 0.9))
    both = pd.concat([rows, table((0.0, 7, 0.3), source="b.mp4")], ignore_index=True)
    assert main_speaker(both).track_id.tolist() == [1, 1, 7]
    assert main_speaker(both, "largest").track_id.tolist() == [2, 1, 3, 7]
    assert list(main_speaker(both)) == list(both)
    with pytest.raises(TableError, match="`which` must be one of largest, longest, got 'loudest'."):
        main_speaker(both, "loudest")


def test_of_a_photo_the_largest_face_stays():
    photo = table((None, None, 0.2), (None, None, 0.7), source="a.jpg")
    assert main_speaker(photo).AU12.tolist() == main_speaker(photo, "largest").AU12.tolist() == [0.7]


def test_a_baseline_hides_a_resting_look():
    rows = table(*((n / 10, 1, 0.6 if n < 25 else 0.99) for n in range(40)))
    assert rows.AU12_present.all()
    for baseline in ("first 2 s", "first 2.0s", "median"):
        result = subtract_baseline(rows, {"AU12": 0.5}, baseline)
        assert result.AU12_present.tolist() == [0] * 25 + [1] * 15, baseline
        assert (result.AU12_present == (result.AU12 >= 0.5)).all()
        assert result.AU12_intensity.iloc[[0, -1]].tolist() == pytest.approx([0, 5 * 0.39])
    assert rows.AU12.iloc[0] == 0.6  # nothing changes in place


def test_a_baseline_is_each_persons_own():
    rows = table((0.0, 1, 0.9), (0.0, 2, 0.1), (0.1, 1, 0.9), (0.1, 2, 0.9))
    assert subtract_baseline(rows, {"AU12": 0.5}, "first 0.05 s").AU12_present.tolist() == [0, 0, 0, 1]


def test_a_neutral_photo_is_the_baseline_of_photos_too():
    neutral, rows = table((None, None, 0.6)), table((None, None, 0.6), (None, None, 0.99))
    assert subtract_baseline(rows, {"AU12": 0.5}, neutral).AU12_present.tolist() == [0, 1]
    pd.testing.assert_frame_equal(subtract_baseline(rows, {"AU12": 0.5}, "median"), rows)
    with pytest.raises(TableError, match="one row with the action units"):
        subtract_baseline(rows, {"AU12": 0.5}, rows)
    with pytest.raises(TableError, match="`baseline` must be 'first 2 s', 'median' or a table"):
        subtract_baseline(rows, {"AU12": 0.5}, "mean")


def test_a_baseline_takes_extremes_and_no_rows():
    result = subtract_baseline(table((0.0, 1, 0.0), (0.1, 1, 1.0)), {"AU12": 0.5}, "median")
    assert np.isfinite(result.AU12).all()
    assert subtract_baseline(result.iloc[:0], {"AU12": 0.5}, "median").empty


def test_the_summary_counts_true_times():
    """0.1 s steps, then a step of 0.2 s, then a gap of 2 s."""
    rows = table((0.0, 1, 0.9), (0.1, 1, 0.9), (0.2, 1, 0.1), (0.3, 1, 0.7), (0.5, 1, 0.7), (2.5, 1, 0.7))
    line = summarize(rows).iloc[0]
    assert (line.AU, line["name"], line.frames) == ("AU12", "Lip corner puller", 6)
    assert line.rate == pytest.approx(5 / 6, abs=1e-4)
    assert line.onsets == 3  # the gap ends a run
    assert line.longest_s == pytest.approx(0.3)  # 0.3 to 0.5, and a usual step
    assert line.mean_duration_s == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    assert line.seconds == pytest.approx(0.7)
    assert line.mean_intensity == pytest.approx(5 * (0.9 * 2 + 0.7 * 3) / 5)


def test_the_summary_has_a_line_per_clip_and_person():
    rows = pd.concat([table((0.0, 1, 0.1), (0.0, 2, 0.9)), table((None, None, 0.9), source="a.jpg")])
    lines = summarize(rows)
    assert lines.source.tolist() == ["clip.mp4", "clip.mp4", "a.jpg"]
    assert lines.onsets.fillna(-1).tolist() == [0, 1, -1]
    assert lines.mean_intensity.isna().tolist() == [True, False, False]
    assert lines.mean_asymmetry.isna().all()
    sided = summarize(rows.assign(AU12_asymmetry=0.25))
    assert sided.mean_asymmetry.fillna(-1).tolist() == [-1, 0.25, 0.25]
    old = rows.drop(columns="AU12_intensity")
    assert summarize(old).mean_intensity.isna().all()
    assert summarize(rows.iloc[:0]).empty


def test_events_are_joined_by_time():
    rows = table((0.0, 1, 0.1), (0.5, 1, 0.1), (0.5, 2, 0.1), (1.0, 1, 0.1), (1.51, 1, 0.1))
    events = pd.DataFrame(
        {"onset": [0.4, 0.9], "duration": [1.0, 0.2], "trial_type": ["clip", "joke"], "rating": [3, 7]}
    )
    joined = join_events(rows, pd.DataFrame(events))
    assert joined.event.fillna("").tolist() == ["", "clip", "clip", "joke", ""]
    assert joined.event_rating.fillna(0).tolist() == [0, 3, 3, 7, 0]
    assert joined.event_onset.dropna().tolist() == [0.4, 0.4, 0.9]
    assert len(joined) == len(rows) and list(joined)[: len(rows.columns)] == list(rows)


def test_moments_and_sources_of_events():
    rows = pd.concat([table((0.0, 1, 0.1), (0.04, 1, 0.1)), table((0.04, 1, 0.1), source="b.mp4")], ignore_index=True)
    press = pd.DataFrame({"Time": [0.05], "Label": ["press"], "source": ["b.mp4"]})
    assert join_events(rows, press).event.fillna("").tolist() == ["", "", "press"]
    assert join_events(rows, press, tolerance_s=0.001).event.isna().all()
    assert join_events(rows, press.iloc[:0]).event.isna().all()


def test_wrong_events_are_refused(tmp_path):
    rows = table((0.0, 1, 0.1))
    with pytest.raises(TableError, match="The events lack a column 'label'"):
        join_events(rows, pd.DataFrame({"onset": [1.0]}))
    with pytest.raises(TableError, match="must be numbers"):
        join_events(rows, pd.DataFrame({"onset": ["00:01"], "label": ["a"]}))
    with pytest.raises(TableError, match="Cannot read the events"):
        read_events(tmp_path / "none.csv")
    (tmp_path / "events.tsv").write_text("onset\tduration\ttrial_type\n0\t1\ta, b\n")
    assert join_events(rows, read_events(tmp_path / "events.tsv")).event.tolist() == ["a, b"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_is_written_and_read(tmp_path, suffix):
    rows = table((0.0, 1, 0.1), (0.1, 1, 0.9)).assign(face=0)
    names = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    rows = rows.assign(**{f"{name}_{axis}": 1.0 for name in names for axis in "xy"})
    write_table(rows, tmp_path / f"table{suffix}", {"AU12": 0.4})
    read, thresholds = read_table(tmp_path / f"table{suffix}")
    assert read.AU12.tolist() == [0.1, 0.9] and list(read) == list(rows)
    assert thresholds["AU12"] == (0.4 if suffix == ".parquet" else 0.5)
