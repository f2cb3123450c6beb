"""Tables as other tools write them, so that scripts made for those run unchanged."""

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_geaau.tables.rows import with_empty_frames

if TYPE_CHECKING:
    import pandas as pd

_OPENFACE = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)
_PYFEAT = [f"AU{number:02d}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)]
# OpenFace's column, ours, and decimals. OpenFace estimates no intensity of AU28.
_OPENFACE_COLUMNS = [
    *((f"AU{number:02d}_r", f"AU{number:02d}_intensity", 2) for number in _OPENFACE if number != 28),
    *((f"AU{number:02d}_c", f"AU{number:02d}_present", 0) for number in _OPENFACE),
]


def to_openface(
    table: "pd.DataFrame",
    frames: "pd.DataFrame | None" = None,
    *,
    as_sequence: bool | None = None,
    with_source: bool | None = None,
) -> "pd.DataFrame":
    """Return a table as OpenFace 2.2 writes it with `-aus`.

    Frames are counted from 1, faces from 0. An action unit that OpenFace has and the table lacks is an empty column,
    except that AU43 (eyes closed) also fills AU45 (blink). Action units that OpenFace lacks are left out.

    Args:
        table: A row per face and frame, from `hf-geaau predict` or `pandas.DataFrame(predict_video(...))`.
        frames: All frames that were looked at, with the columns source, frame and time_s; those without a face become
            rows with `success` 0. None: only frames between the first and the last face, where the frame numbers leave
            a gap; their times are interpolated.
        as_sequence: Whether rows begin with frame, face_id, timestamp, confidence and success, as FeatureExtraction
            and FaceLandmarkVidMulti write them, or with face and confidence, as FaceLandmarkImg does. None: the latter
            for a table of photos alone.
        with_source: Whether a last column names the source; OpenFace writes a file for each. None: if there are
            several.

    Returns:
        Timestamps in seconds, rounded to milliseconds; confidences and intensities rounded to hundredths.

    Source:
        Columns, their order, decimals, counting, and zeros in frames without a face: RecorderCSV.cpp of OpenFace 2.2.0
        and the files that it writes.

    Example:
        >>> import pandas as pd
        >>> face = {"source": "a.mp4", "frame": 0, "time_s": 0.0, "track_id": 1, "face": 0, "score": 0.914}
        >>> table = to_openface(pd.DataFrame([{**face, "AU12": 0.8, "AU12_present": 1, "AU12_intensity": 2.5}]))
        >>> table[["frame", "face_id", "confidence", "success", "AU12_r", "AU12_c"]].values.tolist()
        [[1.0, 0.0, 0.91, 1.0, 2.5, 1.0]]
    """
    import pandas as pd

    if as_sequence is None:
        as_sequence = table.empty or bool(table["time_s"].notna().any())
    if with_source is None:
        with_source = table["source"].nunique() > 1
    rows = with_empty_frames(table, frames) if as_sequence else table
    confidence = _numbers(rows, "score").fillna(0)
    columns: dict[str, Any]
    if as_sequence:
        columns = {
            "frame": rows["frame"].astype("int64") + 1,
            "face_id": _people(rows),
            "timestamp": _numbers(rows, "time_s").fillna(0).round(3),
            "confidence": confidence.round(2),
            "success": rows["score"].notna().astype("int64"),
        }
    else:
        columns = {"face": rows["face"].astype("int64"), "confidence": confidence.round(3)}
    for name, own, decimals in _OPENFACE_COLUMNS:
        own = own if own in table else own.replace("AU45", "AU43")
        columns[name] = _numbers(rows, own).fillna(0).round(decimals) if own in table else np.nan
    if with_source:
        columns["source"] = rows["source"]
    return pd.DataFrame(columns, index=rows.index).reset_index(drop=True)


def to_pyfeat(table: "pd.DataFrame", frames: "pd.DataFrame | None" = None, *, photos_before: int = 0) -> "pd.DataFrame":
    """Return a table with the columns of py-feat's `Fex`, as its detectors save it and `read_feat` reads it.

    Frames are counted from 0; photos are numbered in their order. Action units that py-feat has and the table lacks
    are empty columns, others are left out; so are landmarks, head pose, emotions and gaze.

    Args:
        table: A row per face and frame, from `hf-geaau predict` or `pandas.DataFrame(predict_video(...))`.
        frames: As for `to_openface`; frames without a face become rows that are empty but for input, frame and time.
        photos_before: Number of the first photo.

    Returns:
        Boxes in pixels, action units as probabilities, `approx_time` as minutes and seconds ("01:05"; empty for a
        photo), and `Identity`, "Person_0" for track 1 of a video.

    Source:
        `feat.utils.FEAT_FACEBOX_COLUMNS`, `feat.pretrained.AU_LANDMARK_MAP["Feat"]` and the files in `feat/tests/data`
        of py-feat 2.0.3.

    Example:
        >>> import pandas as pd
        >>> box = {"xmin": 10.0, "ymin": 20.0, "xmax": 40.0, "ymax": 60.0}
        >>> face = {"source": "a.mp4", "frame": 3, "time_s": 0.12, "track_id": 1, "face": 0, "score": 0.9, **box}
        >>> table = to_pyfeat(pd.DataFrame([{**face, "AU12": 0.8, "AU12_present": 1}]))
        >>> table[["FaceRectX", "FaceRectWidth", "AU12", "frame"]].values.tolist()
        [[10.0, 30.0, 0.8, 3.0]]
    """
    import pandas as pd

    rows = with_empty_frames(table, frames)
    is_photo = rows["time_s"].isna()
    seconds = _numbers(rows, "time_s").fillna(0).astype("int64")
    clock = (seconds // 60).astype(str).str.zfill(2) + ":" + (seconds % 60).astype(str).str.zfill(2)
    photo_numbers = pd.Series(pd.factorize(rows["source"].where(is_photo))[0] + photos_before, index=rows.index)
    identity = "Person_" + _people(rows).astype(str)
    left, top = _numbers(rows, "xmin"), _numbers(rows, "ymin")
    columns = {
        "FaceRectX": left,
        "FaceRectY": top,
        "FaceRectWidth": _numbers(rows, "xmax") - left,
        "FaceRectHeight": _numbers(rows, "ymax") - top,
        "FaceScore": _numbers(rows, "score"),
        **{name: _numbers(rows, name).round(6) if name in table else np.nan for name in _PYFEAT},
        "input": rows["source"],
        "frame": rows["frame"].astype("int64").where(~is_photo, photo_numbers),
        "approx_time": clock.where(~is_photo),
        "Identity": identity.where(rows["track_id"].notna()),
    }
    return pd.DataFrame(columns, index=rows.index).reset_index(drop=True)


def _numbers(rows: "pd.DataFrame", name: str) -> "pd.Series[float]":
    return rows[name].astype("Float64").astype("float64")  # through the nullable type: gaps may be of any kind


def _people(rows: "pd.DataFrame") -> "pd.Series[int]":
    """Return each row's person, counted from 0: the track of a video, the face of a photo."""
    return (_numbers(rows, "track_id") - 1).fillna(_numbers(rows, "face")).fillna(0).astype("int64")
