"""Link faces across frames: carry points between detections, find cuts, keep identities, smooth, estimate pose."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.faces import Face
from hf_geaau.faces.five_points import upright_points
from hf_geaau.models.geaau.image_processing_geaau import similarity_transform

Image = NDArray[np.uint8]
Points = NDArray[Any]  # (5, 2), x then y, in pixels of the frame

# A face is followed on a copy in which the eyes are about this far apart: flow costs the same for any size of face.
FLOW_EYES, FLOW_WINDOW, FLOW_LEVELS = 40, 11, 3
FLOW_REACH = 2.2  # eye distances around the points; the head moves less than one from frame to frame
FLOW_ERROR = 1.0  # pixels of that copy by which a point may miss itself after the way there and back
FLOW_LEAST = 8  # of 30 points that must be followed for a face not to count as lost

# A cut: neighbouring frames differ by more than CUT_DIFFERENCE, the mean of 255 over 16×9 cells, and three times as
# much as the frames before them did; and more than CUT_COLOURS of their pixels have other colours, which neither a
# camera on the move nor frames far apart in time bring about.
CUT_DIFFERENCE, CUT_FACTOR, CUT_COLOURS = 18.0, 3.0, 0.25
THUMBNAIL, CELLS = (36, 64), (9, 16)

# A face belongs to a track that should be NEAR now: within so many box sides, and GROWTH more for each second that it
# was missing. It must not look different (Lab, mean difference of 255; 22 is more than the same person ever showed on
# rendered clips), or, if it was missing in between, look similar. One that looks the same is found anywhere, for
# MEMORY_S.
NEAR, GROWTH, MISSING_S, MEMORY_S, MOTION_S = 0.7, 2.0, 1.0, 4.0, 0.5
OTHER_LOOK, SIMILAR_LOOK, SAME_LOOK = 22.0, 12.0, 7.0
LOOK_SIDE, LOOK_EYES, LOOK_CELLS = 96, 48, 8
LOOK_RATE, VELOCITY_S = 0.1, 0.2  # share of a new frame in a track's look; time constant of its speed
CROWDED = 0.02  # faces that overlap by more hide each other: meanwhile neither looks nor speed are learned

# Five points of an average face in eye distances: x to the image's right, y down, z towards the camera.
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.466, 0.591], [-0.389, 1.069, 0.148], [0.389, 1.069, 0.148]])


class CutDetector:
    """Tell whether a new shot begins, from the difference of neighbouring frames.

    Source:
        Content-aware detection as in PySceneDetect, with colour histograms; thresholds are our choice.

    Example:
        >>> cuts, dark, bright = CutDetector(), np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 99, np.uint8)
        >>> [cuts(image) for image in (dark, dark, bright, bright)]
        [False, False, True, False]
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._last: NDArray[np.uint8] | None = None
        self._usual = 0.0
        self._size: tuple[int, ...] = ()
        if state:
            self._last = np.frombuffer(base64.b64decode(state["last"]), np.uint8).reshape(*THUMBNAIL, 3)
            self._usual, self._size = state["usual"], tuple(state["size"])

    def __call__(self, image: Image) -> bool:
        """Take the next frame, (H, W, 3); True if it is the first of a new shot. A change of size is a cut too."""
        import cv2

        few = image[:: 1 + image.shape[0] // 512, :: 1 + image.shape[1] // 512]  # 4K need not be read whole
        small = np.asarray(cv2.resize(few, THUMBNAIL[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        if self._last is None:
            self._last, self._size = small, image.shape
            return False
        cells = [cv2.resize(image, CELLS[::-1], interpolation=cv2.INTER_AREA) for image in (small, self._last)]
        difference = float(cv2.absdiff(*cells).mean())
        is_cut = self._size != image.shape or (
            difference > max(CUT_DIFFERENCE, CUT_FACTOR * self._usual) and _recoloured(small, self._last) > CUT_COLOURS
        )
        self._usual = 0.0 if is_cut else max(difference, 0.7 * self._usual)
        self._last, self._size = small, image.shape
        return is_cut

    def state(self) -> dict[str, Any] | None:
        """What another detector needs to go on from here, as JSON has it."""
        if self._last is None:
            return None
        last = base64.b64encode(self._last.tobytes()).decode()
        return {"last": last, "usual": self._usual, "size": list(self._size)}


def _recoloured(image: Image, other: Image) -> float:
    """Share of pixels whose colour, in four steps per channel, the other image lacks; where they are does not count."""
    counts = [np.bincount((picture >> 6).reshape(-1, 3) @ np.array([16, 4, 1]), minlength=64)
              for picture in (image, other)]  # fmt: skip
    return 1 - float(np.minimum(*counts).sum()) / (image.size / 3)


def follow(before: NDArray[Any], after: NDArray[Any], points: Points) -> Points | None:
    """Carry a face's five points from one frame to the next.

    Pyramidal optical flow of the points and of a grid over the face, kept where the way back leads home; then the
    similarity transform that fits most of it moves the points, so that no single one drifts.

    Args:
        before: (H, W) uint8.
        after: (H, W) uint8.
        points: (5, 2) in pixels of `before`.

    Returns:
        (5, 2) in pixels of `after`; None if the face is lost.

    Source:
        Lucas and Kanade 1981, as Bouguet's pyramid in OpenCV; forward-backward check of Kalal et al. 2010.
    """
    import cv2

    eyes = max(float(np.linalg.norm(points[1] - points[0])), 1.0)
    limits = np.array(before.shape[::-1])
    corner = np.clip(np.floor(points.mean(0) - FLOW_REACH * eyes), 0, limits - 1).astype(int)
    end = np.clip(np.ceil(points.mean(0) + FLOW_REACH * eyes), corner + 1, limits).astype(int)
    size = np.maximum(8, np.round((end - corner) * min(1.0, FLOW_EYES / eyes)).astype(int))
    first, second = (
        cv2.resize(grey[corner[1] : end[1], corner[0] : end[0]], size.tolist(), interpolation=cv2.INTER_AREA)
        for grey in (before, after)
    )
    scale = size / (end - corner)
    start = ((_with_grid(points) - corner) * scale).astype(np.float32)[:, None]
    options: dict[str, Any] = {"winSize": (FLOW_WINDOW, FLOW_WINDOW), "maxLevel": FLOW_LEVELS}
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, second, start, None, **options)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(second, first, there, None, **options)  # type: ignore[call-overload]
    errors = np.linalg.norm((back - start)[:, 0], axis=1)
    kept = (found[:, 0] == 1) & (returned[:, 0] == 1) & (errors < FLOW_ERROR)
    if kept.sum() < FLOW_LEAST:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(start[kept], there[kept], ransacReprojThreshold=1.5)
    if matrix is None:
        return None
    moved = start[:5, 0] @ matrix[:, :2].T + matrix[:, 2]
    return (moved / scale + corner).astype(np.float32)


def _with_grid(points: Points) -> Points:
    """Add 25 points spread over the face."""
    right = points[1] - points[0]
    down = np.array([-right[1], right[0]])
    steps = np.linspace(-0.7, 0.7, 5)
    grid = [points.mean(0) + across * right + along * down for across in steps for along in steps]
    return np.vstack([points, grid])


def carried(face: Face, points: Points, size: tuple[int, int]) -> Face:
    """Give a face whose points have moved; its box moves and grows with them, inside a frame of (width, height)."""
    matrix = similarity_transform(face.points, points)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    box = face.box.reshape(2, 2)
    middle = matrix[:, :2] @ box.mean(0) + matrix[:, 2]
    half = scale * (box[1] - box[0]) / 2
    moved = np.clip([*(middle - half), *(middle + half)], 0, np.tile(size, 2))
    return replace(face, box=moved.astype(np.float32), points=points.astype(np.float32))


def look_of(image: Image, points: Points) -> NDArray[np.float32]:
    """Describe how a face looks from afar: the colours of the upright face in 8×8 cells.

    Returns:
        (192,) float32: Lab values from 0 to 255.
    """
    import cv2

    matrix = similarity_transform(points, upright_points(LOOK_SIDE, LOOK_EYES))
    crop = cv2.warpAffine(image, matrix, (LOOK_SIDE, LOOK_SIDE), borderMode=cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
    return cv2.resize(lab, (LOOK_CELLS, LOOK_CELLS), interpolation=cv2.INTER_AREA).ravel().astype(np.float32)


@dataclass(frozen=True, eq=False)
class Track:
    """One identity: where it was last, how fast its sides move (pixels per second), and how it looks on average."""

    number: int
    time_s: float
    box: NDArray[Any]
    velocity: NDArray[Any]
    look: NDArray[np.float32]

    def box_at(self, time_s: float) -> NDArray[Any]:
        """Where the box should be now; motion is trusted for half a second."""
        return self.box + self.velocity * min(time_s - self.time_s, MOTION_S)


class Tracker:
    """Give the faces of successive frames identities: numbers from 1 that stay with a person.

    A face goes to the track whose box, moved on at its last speed, is nearest and looks most like it. A track that has
    been missing for less than four seconds is found again by its looks alone, wherever the person returns. A cut ends
    all tracks. Pairs are taken best first.

    Looks are colours, not a biometric template: two people of the same colouring and hair can be confused if one
    returns where the other left, and numbers say nothing beyond one video.

    Source:
        Boxes moved on at constant speed: SORT (Bewley et al. 2016). The rest is our choice.

    Example:
        >>> face = Face(np.float32([10, 10, 50, 60]), 0.9, np.zeros((5, 2), np.float32))
        >>> tracker, look = Tracker(), np.zeros(192, np.float32)
        >>> tracker.update(0.0, [face], [look]), tracker.update(0.04, [face], [look])
        ([1], [1])
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._tracks: tuple[Track, ...] = ()
        self._next = 1
        self._before = -math.inf  # time of the last frame
        if state:
            self._before = state["before"]
            self._next = state["next"]
            self._tracks = tuple(
                Track(row["number"], row["time_s"], *(np.asarray(row[name]) for name in ("box", "velocity", "look")))
                for row in state["tracks"]
            )

    def cut(self) -> None:
        """End all tracks: in a new shot, places mean nothing."""
        self._tracks = ()

    def update(self, time_s: float, faces: Sequence[Face], looks: Sequence[NDArray[np.float32]]) -> list[int]:
        """Take the faces of the next frame.

        Args:
            time_s: When.
            faces: Who is there.
            looks: From `look_of`, one per face.

        Returns:
            The identity of each face.
        """
        known = [track for track in self._tracks if time_s - track.time_s <= MEMORY_S]
        is_crowded = [
            any(_overlap(face.box, other.box) > CROWDED for other in faces if other is not face) for face in faces
        ]
        costs = [(self._cost(track, face, look, time_s), place, number)
                 for number, track in enumerate(known)
                 for place, (face, look) in enumerate(zip(faces, looks, strict=True))]  # fmt: skip
        given: dict[int, Track] = {}
        taken: set[int] = set()
        for cost, place, number in sorted(costs):
            if math.isfinite(cost) and place not in given and number not in taken:
                given[place] = _moved(known[number], faces[place], looks[place], time_s, is_crowded[place])
                taken.add(number)
        for place, (face, look) in enumerate(zip(faces, looks, strict=True)):
            if place not in given:
                given[place] = Track(self._next, time_s, face.box.astype(float), np.zeros(4), look)
                self._next += 1
        rest = [track for number, track in enumerate(known) if number not in taken]
        self._tracks, self._before = (*rest, *given.values()), time_s
        return [given[place].number for place in range(len(faces))]

    def missing(self, time_s: float) -> list[NDArray[Any]]:
        """Boxes, moved on, of tracks that were there less than half a second ago and are not now."""
        return [track.box_at(time_s) for track in self._tracks if 0 < time_s - track.time_s <= MOTION_S]

    def state(self) -> dict[str, Any]:
        """What another tracker needs to go on from here, as JSON has it."""
        rows = [
            {"number": track.number, "time_s": track.time_s}
            | {name: getattr(track, name).tolist() for name in ("box", "velocity", "look")}
            for track in self._tracks
        ]
        return {"next": self._next, "before": max(self._before, -1e9), "tracks": rows}

    def _cost(self, track: Track, face: Face, look: NDArray[np.float32], time_s: float) -> float:
        """How badly a face fits a track: below 1 by place, from 1 by looks alone, infinite if not at all."""
        difference = float(np.abs(track.look - look).mean())
        missing = time_s - track.time_s
        limit = OTHER_LOOK if track.time_s >= self._before else SIMILAR_LOOK
        box = track.box_at(time_s)
        side = max(float(np.sqrt((track.box[2:] - track.box[:2]).clip(1).prod())), 1.0)
        distance = float(np.linalg.norm((box[:2] + box[2:] - face.box[:2] - face.box[2:]) / 2)) / side
        reach = NEAR + GROWTH * min(missing, MISSING_S)
        if distance < reach and difference < limit and (missing <= MISSING_S or limit == OTHER_LOOK):
            return (distance / reach + difference / limit) / 2
        return 1 + difference / SAME_LOOK if difference < SAME_LOOK else math.inf


def _moved(track: Track, face: Face, look: NDArray[np.float32], time_s: float, is_crowded: bool) -> Track:
    passed, box = time_s - track.time_s, face.box.astype(float)
    if is_crowded:
        return replace(track, time_s=time_s, box=box)
    velocity = np.zeros(4)
    if 0 < passed <= MOTION_S:
        share = 1 - math.exp(-passed / VELOCITY_S)
        velocity = (1 - share) * track.velocity + share * (box - track.box) / passed
    return Track(track.number, time_s, box, velocity, (1 - LOOK_RATE) * track.look + LOOK_RATE * look)


def _overlap(box: NDArray[Any], other: NDArray[Any]) -> float:
    """Intersection over union of two xyxy boxes."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    areas = (box[2:] - box[:2]).clip(0).prod() + (other[2:] - other[:2]).clip(0).prod()
    return float(shared / max(areas - shared, 1e-9))


class Smoother:
    """Smooth values over time: each frame's share falls off exponentially with its age, by seconds, not frames.

    Args:
        seconds: Time after which a frame's weight has fallen to 1/e; 0 changes nothing.
        state: From another smoother's `state`.

    Example:
        >>> smoother = Smoother(0.2)
        >>> smoother(1, 0.0, np.array([1.0])), smoother(1, 0.2, np.array([0.0])).round(2)
        (array([1.]), array([0.37], dtype=float32))
    """

    def __init__(self, seconds: float = 0.0, state: Mapping[str, Any] | None = None) -> None:
        self.seconds = seconds
        self._last: dict[int, tuple[float, NDArray[Any]]] = {}
        for number, time, values in (state or {}).get("last", []):
            self._last[number] = (time, np.asarray(values, np.float32))

    def __call__(self, track: int, time_s: float, values: NDArray[Any]) -> NDArray[Any]:
        """Smooth one track's next values."""
        if self.seconds <= 0:
            return values
        self._last = {key: kept for key, kept in self._last.items() if time_s - kept[0] <= MEMORY_S}
        if track in self._last:
            before, last = self._last[track]
            keep = math.exp(-max(time_s - before, 0.0) / self.seconds)
            values = (keep * last + (1 - keep) * values).astype(np.float32)
        self._last[track] = (time_s, values)
        return values

    def state(self) -> dict[str, Any]:
        """What another smoother needs to go on from here, as JSON has it."""
        return {"last": [[number, time, values.tolist()] for number, (time, values) in self._last.items()]}


def head_pose(points: Points) -> tuple[float, float]:
    """Estimate how a head is turned from its five points.

    Args:
        points: (5, 2), x then y.

    Returns:
        Roll and yaw in degrees. Roll is the tilt in the image, positive clockwise; positive yaw turns the face to the
        image's right. Rough: a nose longer than average looks like a turn.

    Source:
        Weak perspective: the affine map from the average head to the points by least squares, whose rows give the
        rotation (DeMenthon and Davis 1995, first step of POS). Head: the mean of ICT-FaceKit (MIT).

    Example:
        >>> head_pose(HEAD[:, :2])
        (0.0, 0.0)
    """
    centred = HEAD - HEAD.mean(0)
    rows = np.linalg.lstsq(centred, np.asarray(points, float) - np.mean(points, 0), rcond=None)[0].T  # (2, 3)
    roll = math.atan2(rows[1, 0], rows[0, 0])
    across = rows[0] * math.cos(roll) + rows[1] * math.sin(roll)  # the image's x after the tilt is undone
    down = rows[1] * math.cos(roll) - rows[0] * math.sin(roll)
    scale = max(float(np.linalg.norm(down)), float(np.linalg.norm(across)), 1e-9)
    yaw = math.asin(float(np.clip(across[2] / scale, -1, 1)))
    return round(math.degrees(roll), 3) + 0.0, round(math.degrees(yaw), 3) + 0.0
