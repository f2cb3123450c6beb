"""Rendered clips: people who move, turn and act before one camera, frame by frame, with the truth about each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.camera import Camera
from hf_geaau.synthetic.expressions import expression
from hf_geaau.synthetic.rendering import Renderer
from hf_geaau.synthetic.scenes import Scene, sample_scene
from hf_geaau.synthetic.surroundings import background


class Act(NamedTuple):
    """An action unit that rises from `start` to `peak`, and has gone at `end`; seconds, and intensity 0–5."""

    start: float
    peak: float
    end: float
    level: float = 4.0


@dataclass(frozen=True)
class Actor:
    """One person of a clip.

    Attributes:
        identity_id: Who, as in `sample_scene`.
        path: Keyframes (seconds, x, y) of the point between the eyes, in pixels; in between it moves evenly. Before
            the first and after the last keyframe the person is not there. It may lead out of the picture and back.
        eye_distance: Pixels between the eyes, were the face frontal.
        acts: For each action unit's number, when it acts.
        sway: Amplitude of the head's yaw in radians; roll follows with a third of it.
        resting: Factor of the person's resting look: 0 for a neutral face, 2 for one that looks like an expression.
    """

    identity_id: int
    path: Sequence[tuple[float, float, float]]
    eye_distance: float = 60.0
    acts: Mapping[int, Sequence[Act]] = field(default_factory=dict)
    sway: float = 0.25
    resting: float = 1.0


class Presence(NamedTuple):
    """The truth about one person whose eyes are in the picture; yaw and roll in radians, as in `Scene`."""

    actor: int
    points: NDArray[np.float32]  # (5, 2), in pixels of the frame, of pixel centres
    intensities: NDArray[np.float32]  # (18,), 0–5, in the order of ACTION_UNITS
    yaw: float
    roll: float


class ClipFrame(NamedTuple):
    """One frame: (H, W, 3) uint8 RGB, and who is in it."""

    image: NDArray[np.uint8]
    people: list[Presence]


def render_clip(
    renderer: Renderer,
    actors: Sequence[Actor],
    seconds: float,
    fps: float = 25.0,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
) -> Iterator[ClipFrame]:
    """Render a clip, one frame after the other; later actors stand before earlier ones.

    Args:
        renderer: Draws the frames.
        actors: Who does what; none for an empty room.
        seconds: Length.
        fps: Frames per second.
        size: Width and height in pixels.
        seed: Decides the room, the light and what `identity_id` looks like.
    """
    scenes = [_studio(sample_scene(seed, actor.identity_id, actor.identity_id), actor.resting) for actor in actors]
    scenes = [replace(scene, light=scenes[0].light) for scene in scenes]
    room = background(np.random.default_rng(seed), size[1], size[0])
    for number in range(round(seconds * fps)):
        time = number / fps
        image, people = room, []
        for place, (actor, scene) in enumerate(zip(actors, scenes, strict=True)):
            times, xs, ys = np.transpose(actor.path)
            if not times[0] <= time <= times[-1]:
                continue
            acting = _acting(scene, actor, time)
            center = float(np.interp(time, times, xs)), float(np.interp(time, times, ys))
            render = renderer.render_photo(acting, size[1], size[0], actor.eye_distance, center, backdrop=image)
            image = render.image
            if 0 <= center[0] < size[0] and 0 <= center[1] < size[1]:
                people.append(
                    Presence(
                        place, (render.points - 0.5).astype(np.float32), acting.intensities, acting.yaw, acting.roll
                    )
                )
        yield ClipFrame(image, people)


def _studio(scene: Scene, resting: float) -> Scene:
    """Take out what would change between two people of one shot: the camera's faults, and things before the face."""
    person = replace(scene.identity, resting=resting * scene.identity.resting)
    return replace(scene, identity=person, camera=Camera(), occluder="", pitch=0.0)


def _acting(scene: Scene, actor: Actor, time: float) -> Scene:
    """Give the scene's face the expression and pose of one moment."""
    wanted = np.zeros(len(ACTION_UNITS))
    for number, acts in actor.acts.items():
        levels = [np.interp(time, (act.start, act.peak, act.end), (0, act.level, 0)) for act in acts]
        wanted[ACTION_UNITS.index(number)] = max(levels, default=0.0)
    shown = expression(wanted, np.random.default_rng(scene.index), nuisances=False)
    phase = 2 * np.pi * (time / 3 + 0.37 * scene.index)  # a sway takes three seconds
    yaw = actor.sway * np.sin(phase)
    return replace(scene.showing(shown), yaw=float(yaw), roll=float(actor.sway / 3 * np.sin(phase * 0.7)))
