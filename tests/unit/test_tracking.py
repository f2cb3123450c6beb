"""Identities over time, on boxes whose truth is known."""

import json

import numpy as np
import pytest

from hf_geaau.faces import Face
from hf_geaau.faces.five_points import upright_points
from hf_geaau.video.tracking import CutDetector, Smoother, Tracker, appearance_of, follow_points, head_pose, move_face

RED, BLUE = (np.tile(np.float32(color), 64) for color in ((120, 180, 150), (90, 110, 90)))


def face(x, y=100.0, side=60.0):
    box = np.float32([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return Face(box, 0.9, (upright_points(side, 0.4 * side) + box[:2]).astype(np.float32))


def test_two_people_who_cross_keep_their_numbers():
    tracker, numbers = Tracker(), []
    for step in range(50):
        left, right = 100 + 8 * step, 500 - 8 * step
        faces, looks = [face(left), face(right, 110)], [RED, BLUE]
        if abs(left - right) < 60:  # the one behind cannot be seen
            faces, looks = faces[1:], looks[1:]
        if step % 2:  # the detector's order means nothing
            faces, looks = faces[::-1], looks[::-1]
        given = dict(zip(tracker.update(step / 25, faces, looks), (look is RED for look in looks), strict=True))
        numbers.append(given)
    for given in numbers:
        assert given.items() <= {1: True, 2: False}.items()
    assert len(numbers[-1]) == 2


def test_the_same_looks_are_told_apart_by_place_and_motion():
    tracker = Tracker()
    for step in range(40):
        assert tracker.update(step / 25, [face(100 + 5 * step), face(400)], [RED, RED]) == [1, 2]


def test_short_misses_longer_absence_and_strangers():
    tracker = Tracker()
    assert tracker.update(0.0, [face(100)], [RED]) == [1]
    assert tracker.update(0.3, [face(110)], [RED]) == [1]  # missed for a third of a second
    assert [box.tolist() for box in tracker.missing(0.3)] == []
    assert tracker.update(0.34, [], []) == []
    assert len(tracker.missing(0.34)) == 1
    assert tracker.update(2.3, [face(500)], [RED]) == [1]  # comes back elsewhere
    assert tracker.update(2.34, [face(100)], [BLUE]) == [2]
    assert tracker.update(3.4, [face(500)], [BLUE]) == [2]
    assert tracker.update(60.0, [face(500)], [RED]) == [3]  # too long ago to be sure


def test_a_cut_ends_all_tracks():
    tracker = Tracker()
    tracker.update(0.0, [face(100)], [RED])
    tracker.cut()
    assert tracker.update(0.04, [face(100)], [RED]) == [2]


def test_a_tracker_goes_on_from_its_state():
    first, path = Tracker(), [(step / 25, face(100 + 9 * step)) for step in range(20)]
    for time, one in path[:10]:
        first.update(time, [one], [RED])
    second = Tracker(json.loads(json.dumps(first.state())))
    for time, one in path[10:]:
        assert second.update(time, [one], [RED]) == first.update(time, [one], [RED]) == [1]
        velocities = [tracker.state()["tracks"][0]["velocity"] for tracker in (first, second)]
        np.testing.assert_allclose(*velocities)


def test_points_move_as_the_picture_moves(portrait):
    import cv2

    photo, points = portrait
    points = np.float32(points)
    turn = cv2.getRotationMatrix2D(points.mean(0).tolist(), 4, 1.04)
    turn[:, 2] += (6, -4)
    moved = cv2.warpAffine(photo, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    expected = points @ turn[:, :2].T + turn[:, 2]
    found = follow_points(photo, moved, points)
    assert np.linalg.norm(found - expected, axis=1).max() < 1.0
    assert follow_points(photo, np.roll(moved, 250, 1), points) is None  # gone
    moved_face = move_face(Face(np.float32([150, 50, 300, 200]), 0.9, points), found, (512, 512))
    assert moved_face.box[2] - moved_face.box[0] == pytest.approx(150 * 1.04, rel=0.02)


def test_looks_tell_people_apart_more_than_moments(portrait):
    photo, points = portrait
    points = np.float32(points)
    look = appearance_of(photo, points)
    same = appearance_of(np.clip(photo * 1.05, 0, 255).astype(np.uint8), points + 2)
    other = appearance_of(photo[:, :, ::-1].copy(), points)
    assert look.shape == (192,)
    assert np.abs(look - same).mean() < 5 < 15 < np.abs(look - other).mean()


def test_cuts_but_neither_motion_nor_light_end_a_shot(portrait):
    photo, _ = portrait
    cuts = CutDetector()
    assert not any(cuts(np.roll(photo, 12 * step, 1)) for step in range(8))
    photo = np.roll(photo, 84, 1)
    assert not any(cuts((photo * (1 - 0.05 * step)).astype(np.uint8)) for step in range(4))
    other = CutDetector(json.loads(json.dumps(cuts.state())))
    shot = 255 - photo
    assert cuts(shot)
    assert other(shot)
    assert not cuts(shot)
    assert cuts(shot[:300])  # another size


def test_smoothing_goes_by_seconds_and_starts_anew_for_each_face():
    smoother = Smoother(0.5)
    assert smoother(1, 0.0, np.array([0.0, 1.0])).tolist() == [0, 1]
    halfway = smoother(1, 0.5, np.array([1.0, 0.0]))
    assert halfway == pytest.approx([1 - np.exp(-1), np.exp(-1)])
    assert smoother(2, 0.5, np.array([1.0, 0.0])).tolist() == [1, 0]
    again = Smoother(0.5, json.loads(json.dumps(smoother.state())))
    assert again(1, 0.6, np.zeros(2)) == pytest.approx(smoother(1, 0.6, np.zeros(2)))


@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (30, 0), (-20, 10), (15, -25)])
def test_head_pose(yaw, roll):
    from hf_geaau.video.tracking import HEAD

    turn, tilt = np.deg2rad([yaw, roll])
    turned = HEAD @ np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]).T
    flat = turned[:, :2] @ np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]).T
    assert head_pose(200 + 60 * flat) == pytest.approx((roll, yaw), abs=1.0)
