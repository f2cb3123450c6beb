"""Small intact files of every format that we read, drawn here."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 40, 24


def picture(number: int = 0) -> Image.Image:
    """Return a picture that differs along both axes, and from those of other numbers."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    noise = np.random.default_rng(number).integers(0, 16, (SIZE[1], SIZE[0]))
    return Image.fromarray(np.stack([x * 6, y * 10, 100 + 30 * number + noise], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the content of a picture's file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def exif(orientation: int = 6) -> bytes:
    """Return an EXIF block as a camera writes it, with a directory of its own for the exposure."""
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x0110], block[0x011A] = orientation, "A maker", "A model", 72.0
    block.get_ifd(0x8769).update({0x829A: 0.01, 0x9003: "2026:01:01 12:00:00", 0x927C: bytes(40)})
    return block.tobytes()


def _deep() -> Iterator[tuple[str, bytes]]:
    import cv2

    rgb = np.asarray(picture()).astype(np.uint16) * 257
    for suffix in ("png", "tiff"):
        yield f"16 bits {suffix}", cv2.imencode(f".{suffix}", rgb)[1].tobytes()
        yield f"16 bits gray {suffix}", encoded(Image.fromarray(rgb[..., 0]), suffix)
    yield "float tiff", encoded(Image.fromarray(np.float32(rgb[..., 0] / 65535)), "TIFF")
    yield "16 bits ppm", cv2.imencode(".ppm", rgb)[1].tobytes()


def _still() -> Iterator[tuple[str, bytes]]:
    rgb, data = picture(), {"exif": exif()}
    yield "jpeg", encoded(rgb, "JPEG", **data)
    yield "jpeg progressive", encoded(rgb, "JPEG", progressive=True, subsampling=0, **data)
    yield "jpeg cmyk", encoded(rgb.convert("CMYK"), "JPEG")
    yield "jpeg gray", encoded(rgb.convert("L"), "JPEG", restart_marker_blocks=1)
    yield "mpo", encoded(rgb, "MPO", save_all=True, append_images=[picture(1)], **data)
    yield "png", encoded(rgb, "PNG", **data)
    yield "png palette", encoded(rgb.quantize(16), "PNG", transparency=3)
    yield "png alpha", encoded(rgb.convert("RGBA"), "PNG")
    yield "png bits", encoded(rgb.convert("1"), "PNG")
    yield "webp", encoded(rgb, "WEBP", **data)
    yield "webp lossless", encoded(rgb.convert("RGBA"), "WEBP", lossless=True)
    yield "gif", encoded(rgb.quantize(64), "GIF", interlace=1)
    yield "bmp", encoded(rgb, "BMP")
    yield "bmp palette", encoded(rgb.quantize(16), "BMP")
    yield "jpeg2000", encoded(rgb, "JPEG2000")
    yield "j2k", encoded(rgb, "JPEG2000", no_jp2=True)
    yield "avif", encoded(rgb, "AVIF", **data)
    yield "ppm", encoded(rgb, "PPM")
    yield "pgm", encoded(rgb.convert("L"), "PPM")
    yield "plain ppm", b"P3 4 3 255\n# a comment\n" + b" ".join(b"%d" % value for value in range(36))
    yield "pfm", encoded(Image.fromarray(np.float32(np.asarray(rgb)[..., 0] / 255)), "PPM")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        image = rgb.convert("1") if compression == "group4" else rgb
        yield f"tiff {compression}", encoded(image, "TIFF", compression=compression, tiffinfo={0x0112: 6})
    yield "bigtiff", encoded(rgb, "TIFF", big_tiff=True)
    yield "tiff pages", encoded(rgb, "TIFF", save_all=True, append_images=[picture(1)])


def _animated() -> Iterator[tuple[str, bytes]]:
    options = {"save_all": True, "append_images": [picture(1), picture(2)], "duration": 40}
    for file_format in ("GIF", "PNG", "WEBP", "AVIF"):
        yield f"animated {file_format}".lower(), encoded(picture(), file_format, **options)


def _heif() -> Iterator[tuple[str, bytes]]:
    try:
        import pillow_heif
    except ImportError:
        return
    for name, options in (("heic", {"exif": exif()}), ("heic turned", {"exif": exif(3), "quality": 20})):
        stream = io.BytesIO()
        pillow_heif.from_pillow(picture().resize((64, 48))).save(stream, **options)
        yield name, stream.getvalue()


def photos() -> dict[str, bytes]:
    """Return a file of each photo format and variant that we read; HEIC if pillow-heif can write it."""
    return dict([*_still(), *_deep(), *_animated(), *_heif()])


_CODECS = {
    "mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "mpg": "mpeg2video", "ts": "libx264", "webm": "libvpx",
    "mov": "mpeg4",
}  # fmt: skip


def videos(folder: Path) -> dict[str, bytes]:
    """Return a video of eight frames, 64×48, in each container, one of them interlaced; keys are suffixes."""
    from tests.clips import numbered, write_clip

    written = {}
    for suffix, codec in _CODECS.items():
        noise = np.random.default_rng(len(written)).integers(0, 20, (8, 48, 64, 3))
        frames = [(frame + more).astype(np.uint8) for frame, more in zip(numbered(8), noise, strict=True)]
        written[suffix] = write_clip(folder / f"seed.{suffix}", frames, codec=codec).read_bytes()
    rich = folder / "seed.m2ts"
    _write_interlaced_with_sound(rich, frames)
    return written | {"m2ts": rich.read_bytes()}


def _write_interlaced_with_sound(path: Path, frames: list[np.ndarray]) -> None:
    import av

    with av.open(str(path), "w", format="mpegts") as container:
        picture = container.add_stream("mpeg2video", rate=25, options={"flags": "+ilme+ildct"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=16000, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame)))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 5120), np.int16), "s16", "mono")
        samples.sample_rate, samples.pts = 16000, 0
        for stream, rest in ((sound, samples), (sound, None), (picture, None)):
            container.mux(stream.encode(rest))
