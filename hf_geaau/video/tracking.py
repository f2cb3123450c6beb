"""Link faces across frames: follow points between detections, find cuts, keep identities, smooth, estimate pose."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.faces import Face
from hf_geaau.faces.face import box_iou
from hf_geaau.faces.five_points import upright_points
from hf_geaau.models.geaau.cropping_geaau import similarity_transform

Image = NDArray[np.uint8]
Points = NDArray[Any]  # (5, 2), x then y, in pixels of the frame

# A face is followed on a copy in which the eyes are about this far apart: flow costs the same for any size of face.
FLOW_EYES, FLOW_WINDOW, FLOW_LEVELS = 40, 11, 3
FLOW_REACH = 2.2  # eye distances around the points; the head moves less than one from frame to frame
FLOW_ERROR = 1.0  # pixels of that copy by which a point may miss itself after flow forward and backward
MIN_FLOW_POINTS = 8  # with fewer of its 30 points followed, a face counts as lost

# A cut: neighboring frames differ by more than CUT_DIFFERENCE, the mean of 255 over 16×9 cells, and three times as
# much as the frames before them did; and more than CUT_COLORS of their pixels have other colors, which neither a
# moving camera nor frames far apart in time cause.
CUT_DIFFERENCE, CUT_FACTOR, CUT_COLORS = 18.0, 3.0, 0.25
THUMBNAIL, CELLS = (36, 64), (9, 16)

# A face belongs to a track whose predicted box is at most MAX_DISTANCE box sides away, and GROWTH more for each second
# that it was missing. Its appearance (Lab, mean difference of 255; 22 is more than the same person ever showed on
# rendered clips) must not be different or, if it was missing in between, must be similar. A face of the same
# appearance is found anywhere, for MEMORY_S.
MAX_DISTANCE, GROWTH, MISSING_S, MEMORY_S, MOTION_S = 0.7, 2.0, 1.0, 4.0, 0.5
DIFFERENT, SIMILAR, SAME = 22.0, 12.0, 7.0
APPEARANCE_SIDE, APPEARANCE_EYES, APPEARANCE_CELLS = 96, 48, 8
APPEARANCE_RATE, VELOCITY_S = 0.1, 0.2  # share of a new frame in a track's appearance; time constant of its velocity
CROWDED = 0.02  # faces whose IoU is larger hide each other: meanwhile neither appearance nor velocity are learned

# Five points of an average face in eye distances: x to the image's right, y down, z toward the camera.
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.466, 0.591], [-0.389, 1.069, 0.148], [0.389, 1.069, 0.148]])


class CutDetector:
    """Find where a new shot begins, from the difference of neighboring frames.

    Source:
        Content-aware detection as in PySceneDetect, with color histograms; thresholds are our choice.

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
        """Return whether the next frame, (H, W, 3), is the first of a new shot. A change of size is a cut too."""
        import cv2

        sparse = image[:: 1 + image.shape[0] // 160]  # for 36 rows, frames need not be read whole
        small = np.asarray(cv2.resize(sparse, THUMBNAIL[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        if self._last is None:
            self._last, self._size = small, image.shape
            return False
        cells = [cv2.resize(image, CELLS[::-1], interpolation=cv2.INTER_AREA) for image in (small, self._last)]
        difference = float(cv2.absdiff(*cells).mean())
        is_cut = self._size != image.shape or (
            difference > max(CUT_DIFFERENCE, CUT_FACTOR * self._usual) and _color_change(small, self._last) > CUT_COLORS
        )
        self._usual = 0.0 if is_cut else max(difference, 0.7 * self._usual)
        self._last, self._size = small, image.shape
        return is_cut

    def state(self) -> dict[str, Any] | None:
        """Return what another detector needs to continue from here, as JSON values."""
        if self._last is None:
            return None
        last = base64.b64encode(self._last.tobytes()).decode()
        return {"last": last, "usual": self._usual, "size": list(self._size)}


def _color_change(image: Image, other: Image) -> float:
    """Return the share of pixels whose color, in four steps per channel, the other image lacks, wherever they lie."""
    counts = [
        np.bincount((picture >> 6).reshape(-1, 3) @ np.array([16, 4, 1]), minlength=64) for picture in (image, other)
    ]
    return 1 - float(np.minimum(*counts).sum()) / (image.size / 3)


def follow_points(before: Image, after: Image, points: Points) -> Points | None:
    """Follow a face's five points from one frame to the next.

    Pyramidal optical flow follows the points and a grid over the face; points that backward flow does not return to
    their start are dropped. The similarity transform that fits most of the others moves the five points, so that no
    single one drifts.

    Args:
        before: (H, W, 3) uint8 RGB.
        after: (H, W, 3) uint8 RGB.
        points: (5, 2) in pixels of `before`.

    Returns:
        (5, 2) in pixels of `after`; None if the face is lost.

    Source:
        Lucas and Kanade 1981, as Bouguet's pyramid in OpenCV; forward-backward check of Kalal et al. 2010.
    """
    import cv2

    eyes = max(float(np.linalg.norm(points[1] - points[0])), 1.0)
    limits = np.array(before.shape[1::-1])
    corner = np.clip(np.floor(points.mean(0) - FLOW_REACH * eyes), 0, limits - 1).astype(int)
    end = np.clip(np.ceil(points.mean(0) + FLOW_REACH * eyes), corner + 1, limits).astype(int)
    size = np.maximum(8, np.round((end - corner) * min(1.0, FLOW_EYES / eyes)).astype(int))
    first, second = (
        cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), size.tolist(), interpolation=cv2.INTER_AREA)
        for part in (image[corner[1] : end[1], corner[0] : end[0]] for image in (before, after))
    )
    scale = size / (end - corner)
    start = ((_with_grid(points) - corner) * scale).astype(np.float32)[:, None]
    options: dict[str, Any] = {"winSize": (FLOW_WINDOW, FLOW_WINDOW), "maxLevel": FLOW_LEVELS}
    forward, was_found, _ = cv2.calcOpticalFlowPyrLK(first, second, start, None, **options)  # type: ignore[call-overload]
    backward, was_found_again, _ = cv2.calcOpticalFlowPyrLK(second, first, forward, None, **options)  # type: ignore[call-overload]
    errors = np.linalg.norm((backward - start)[:, 0], axis=1)
    kept = (was_found[:, 0] == 1) & (was_found_again[:, 0] == 1) & (errors < FLOW_ERROR)
    if kept.sum() < MIN_FLOW_POINTS:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(start[kept], forward[kept], ransacReprojThreshold=1.5)
    if matrix is None:
        return None
    moved = start[:5, 0] @ matrix[:, :2].T + matrix[:, 2]
    return (moved / scale + corner).astype(np.float32)


def _with_grid(points: Points) -> Points:
    """Append 25 points spread over the face."""
    right = points[1] - points[0]
    down = np.array([-right[1], right[0]])
    steps = np.linspace(-0.7, 0.7, 5)
    grid = points.mean(0) + steps[:, None, None] * right + steps[:, None] * down
    return np.vstack([points, grid.reshape(-1, 2)])


def move_face(face: Face, points: Points, size: tuple[int, int]) -> Face:
    """Return the face with moved points; its box moves and scales with them, inside a frame of (width, height)."""
    matrix = similarity_transform(face.points, points)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    box = face.box.reshape(2, 2)
    middle = matrix[:, :2] @ box.mean(0) + matrix[:, 2]
    half = scale * (box[1] - box[0]) / 2
    moved = np.clip([*(middle - half), *(middle + half)], 0, np.tile(size, 2))
    return replace(face, box=moved.astype(np.float32), points=points.astype(np.float32))


def appearance_of(image: Image, points: Points) -> NDArray[np.float32]:
    """Describe a face's appearance: the colors of the upright face in 8×8 cells.

    Returns:
        (192,) float32: Lab values from 0 to 255.
    """
    import cv2

    matrix = similarity_transform(points, upright_points(APPEARANCE_SIDE, APPEARANCE_EYES))
    crop = cv2.warpAffine(image, matrix, (APPEARANCE_SIDE, APPEARANCE_SIDE), borderMode=cv2.BORDER_REPLICATE)
    cells = cv2.resize(crop, (APPEARANCE_CELLS, APPEARANCE_CELLS), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(cells, cv2.COLOR_RGB2LAB).ravel().astype(np.float32)


@dataclass(frozen=True, eq=False)
class Track:
    """One identity: its last box, the velocity of the box's sides (pixels per second), and its average appearance."""

    number: int
    time_s: float
    box: NDArray[Any]
    velocity: NDArray[Any]
    appearance: NDArray[np.float32]

    def box_at(self, time_s: float) -> NDArray[Any]:
        """Predict the box; motion is trusted for half a second."""
        return self.box + self.velocity * min(time_s - self.time_s, MOTION_S)


class Tracker:
    """Assign identities to the faces of successive frames: numbers from 1 that stay with a person.

    A face goes to the track whose predicted box is nearest and whose appearance is most alike. A track that has been
    missing for less than four seconds is found again by appearance alone, wherever the person returns. A cut ends all
    tracks. Pairs are assigned best first.

    Appearance means colors, not a biometric template: two people of the same coloring and hair can be confused if one
    returns where the other left, and identities are valid within one video only.

    Source:
        Boxes predicted at constant velocity: SORT (Bewley et al. 2016). The rest is our choice.

    Example:
        >>> face = Face(np.float32([10, 10, 50, 60]), 0.9, np.zeros((5, 2), np.float32))
        >>> tracker, appearance = Tracker(), np.zeros(192, np.float32)
        >>> tracker.update(0.0, [face], [appearance]), tracker.update(0.04, [face], [appearance])
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
        """End all tracks: positions mean nothing in a new shot."""
        self._tracks = ()

    def update(self, time_s: float, faces: Sequence[Face], appearances: Sequence[NDArray[np.float32]]) -> list[int]:
        """Assign the faces of the next frame.

        Args:
            time_s: Time of the frame in seconds.
            faces: The faces in it.
            appearances: From `appearance_of`, one per face.

        Returns:
            The identity of each face.
        """
        known = [track for track in self._tracks if time_s - track.time_s <= MEMORY_S]
        pairs = [
            (self._cost(track, face, appearance, time_s), index, known_index)
            for known_index, track in enumerate(known)
            for index, (face, appearance) in enumerate(zip(faces, appearances, strict=True))
        ]
        assigned: dict[int, Track] = {}
        taken: set[int] = set()
        for cost, index, known_index in sorted(pairs):
            if math.isfinite(cost) and index not in assigned and known_index not in taken:
                face, track = faces[index], known[known_index]
                is_crowded = any(box_iou(face.box, other.box) > CROWDED for other in faces if other is not face)
                assigned[index] = _updated(track, face, appearances[index], time_s, is_crowded)
                taken.add(known_index)
        for index, (face, appearance) in enumerate(zip(faces, appearances, strict=True)):
            if index not in assigned:
                assigned[index] = Track(self._next, time_s, face.box.astype(float), np.zeros(4), appearance)
                self._next += 1
        rest = [track for known_index, track in enumerate(known) if known_index not in taken]
        self._tracks, self._before = (*rest, *assigned.values()), time_s
        return [assigned[index].number for index in range(len(faces))]

    def missing(self, time_s: float) -> list[NDArray[Any]]:
        """Return the predicted boxes of tracks that were seen less than half a second ago and are not now."""
        return [track.box_at(time_s) for track in self._tracks if 0 < time_s - track.time_s <= MOTION_S]

    def state(self) -> dict[str, Any]:
        """Return what another tracker needs to continue from here, as JSON values."""
        rows = [
            {"number": track.number, "time_s": track.time_s, "box": track.box.tolist()}
            | {"velocity": track.velocity.tolist(), "look": track.appearance.tolist()}
            for track in self._tracks
        ]
        return {"next": self._next, "before": max(self._before, -1e9), "tracks": rows}

    def _cost(self, track: Track, face: Face, appearance: NDArray[np.float32], time_s: float) -> float:
        """Return how badly a face fits a track: below 1 by position, from 1 by appearance alone, else infinite."""
        difference = float(np.abs(track.appearance - appearance).mean())
        missing = time_s - track.time_s
        limit = DIFFERENT if track.time_s >= self._before else SIMILAR
        box = track.box_at(time_s)
        side = max(float(np.sqrt((track.box[2:] - track.box[:2]).clip(1).prod())), 1.0)
        distance = float(np.linalg.norm((box[:2] + box[2:] - face.box[:2] - face.box[2:]) / 2)) / side
        reach = MAX_DISTANCE + GROWTH * min(missing, MISSING_S)
        if distance < reach and difference < limit and (missing <= MISSING_S or limit == DIFFERENT):
            return (distance / reach + difference / limit) / 2
        return 1 + difference / SAME if difference < SAME else math.inf


def _updated(track: Track, face: Face, appearance: NDArray[np.float32], time_s: float, is_crowded: bool) -> Track:
    elapsed, box = time_s - track.time_s, face.box.astype(float)
    if is_crowded:
        return replace(track, time_s=time_s, box=box)
    velocity = np.zeros(4)
    if 0 < elapsed <= MOTION_S:
        share = 1 - math.exp(-elapsed / VELOCITY_S)
        velocity = (1 - share) * track.velocity + share * (box - track.box) / elapsed
    average = (1 - APPEARANCE_RATE) * track.appearance + APPEARANCE_RATE * appearance
    return Track(track.number, time_s, box, velocity, average)


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
        """Return what another smoother needs to continue from here, as JSON values."""
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
    centered = HEAD - HEAD.mean(0)
    rows = np.linalg.lstsq(centered, np.asarray(points, float) - np.mean(points, 0), rcond=None)[0].T  # (2, 3)
    roll = math.atan2(rows[1, 0], rows[0, 0])
    across = rows[0] * math.cos(roll) + rows[1] * math.sin(roll)  # the image's x after the tilt is undone
    down = rows[1] * math.cos(roll) - rows[0] * math.sin(roll)
    scale = max(float(np.linalg.norm(down)), float(np.linalg.norm(across)), 1e-9)
    yaw = math.asin(float(np.clip(across[2] / scale, -1, 1)))
    return round(math.degrees(roll), 3) + 0.0, round(math.degrees(yaw), 3) + 0.0
