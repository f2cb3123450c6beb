"""Where decoding can begin so that the frames from a time on are the same, with the same numbers, as from the start.

Packets are counted, not decoded: in the codecs listed here each holds one frame. What a container says of its key
frames is not believed without a look: `VideoReader` decodes from the start if another frame comes than announced.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

COUNTABLE = frozenset({"h264", "hevc", "av1", "vp9", "mjpeg", "mpeg4", "mpeg2video"})
"""Codecs of which a packet, as FFmpeg's demuxers and parsers cut them, is one frame."""
REORDERED_S = 1.0
"""Frames of which a packet comes later than this, in seconds, are no B-frames but a clock that starts over."""
MARGIN_S = 0.5
"""Seconds between the key frame and the first wanted frame, of which a deinterlacer sees the neighbors."""
LEAD_S = 1.0
"""Seconds before the key frame to seek to. Transport streams are sought by decoding time, and not to key frames."""


class KeyFrame(NamedTuple):
    """Where to begin.

    Attributes:
        pts: The frame's time stamp, in the stream's units.
        number: Its index in the video.
        before: Time stamps in seconds of all frames before it.
    """

    pts: int
    number: int
    before: list[float]


def key_frame_before(stream: Any, clock: Callable[[float], float], start_s: float) -> KeyFrame | None:
    """Return the last key frame that lies before a time, of a video of which nothing was read yet.

    Args:
        stream: PyAV's video stream, whose packets are read up to that time.
        clock: Turns time stamps in seconds, in order, into times on the player's clock.
        start_s: The time, in seconds on the player's clock.

    Returns:
        None if there is none but the first, or if packets do not tell how many frames come before it.
    """
    unit, stamps, keys = stream.time_base, list[int](), set[int]()
    if not unit or stream.codec_context.codec.canonical_name not in COUNTABLE:
        return None
    latest = first = None
    for packet in stream.container.demux(stream):
        if packet.size == 0 and packet.dts is None:  # the end
            break
        if packet.pts is None or packet.size == 0 or packet.is_corrupt or packet.is_discard:
            return None
        first = packet.pts if first is None else min(first, packet.pts)
        latest = packet.pts if latest is None else max(latest, packet.pts)
        if (latest - packet.pts) * unit > REORDERED_S:
            return None
        if packet.is_keyframe:
            if (packet.pts - first) * unit > start_s + REORDERED_S:
                break  # nothing later is shown before it
            keys.add(packet.pts)
        stamps.append(packet.pts)
    stamps.sort()
    if len(set(stamps)) < len(stamps):
        return None
    seconds = [float(stamp * unit) for stamp in stamps]
    times = [clock(second) for second in seconds]
    found = [number for number, stamp in enumerate(stamps) if stamp in keys and times[number] <= start_s - MARGIN_S]
    if not found or found[-1] == 0:
        return None
    return KeyFrame(stamps[found[-1]], found[-1], seconds[: found[-1]])
