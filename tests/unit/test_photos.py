"""read_photo: what is accepted, what comes out, and the text of every refusal."""

import base64
import contextlib
import gzip
import http.server
import io
import nturl2path
import os
import struct
import threading
import time
import urllib.request
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from hf_geaau.errors import PhotoError, PhotoWarning
from hf_geaau.faces import fetching
from hf_geaau.faces.photos import load_photo, local_path, read_photo
from hf_geaau.video.kinds import kind_of

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def gradient():
    """A 40×24 RGB image, different along both axes."""
    y, x = np.mgrid[:24, :40]
    return Image.fromarray(np.stack([x * 6, y * 10, x * 0 + 128], axis=-1).astype(np.uint8))


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def refusal(source, **options):
    with pytest.raises(PhotoError) as caught:
        read_photo(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- what is accepted


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_reads_formats(gradient, file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    photo = read_photo(encoded(gradient, file_format, **options))
    assert photo.mode == "RGB"
    assert np.array_equal(photo, gradient)


def test_reads_paths_bytes_and_views_alike(gradient, tmp_path):
    content = encoded(gradient)
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for source in (path, str(path), content, bytearray(content), memoryview(content), gradient, np.asarray(gradient)):
        assert np.array_equal(read_photo(source), gradient)


def test_content_decides_not_the_extension(gradient, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(gradient, "PNG"))
    assert np.array_equal(read_photo(path), gradient)


def test_returns_a_new_image_and_leaves_the_source(gradient):
    before = np.array(gradient)
    photo = read_photo(gradient)
    photo.paste("black", (0, 0, 40, 24))
    assert np.array_equal(gradient, before)


def test_a_pixel_is_a_photo():
    assert read_photo(encoded(Image.new("RGB", (1, 1), "red"))).size == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(gradient, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = gradient.transpose(undo[orientation]) if orientation in undo else gradient
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    photo = read_photo(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(photo, gradient)
    assert np.array_equal(read_photo(photo), gradient)


def test_broken_exif_does_not_spoil_the_photo(gradient):
    photo = load_photo(encoded(gradient, "JPEG", exif=b"Exif\x00\x00not a TIFF header", quality=95))
    assert photo.image.size == gradient.size
    assert photo.notes == ["its EXIF data is damaged, so it was taken as upright"]


def needs_pillow_13(file_format):
    reason = "Pillow 12 loses the tags of a TIFF that follow a damaged one, and with them its pixels"
    return pytest.param(file_format, marks=pytest.mark.skipif(PIL.__version__ < "13", reason=reason))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", needs_pillow_13("TIFF")])
def test_the_orientation_is_read_past_a_damaged_tag(gradient, file_format):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010F] = 6, "the name of a maker"
    damaged = exif.tobytes().replace(struct.pack("<HHL", 0x010F, 2, 20), struct.pack("<HHL", 0x010F, 2, 2000))
    damaged = damaged.replace(struct.pack(">HHL", 0x010F, 2, 20), struct.pack(">HHL", 0x010F, 2, 2000))
    if file_format == "TIFF":
        content = encoded(gradient, "TIFF", tiffinfo={EXIF_ORIENTATION: 6, 0x010F: "the name of a maker"})
        content = content.replace(struct.pack("<HHL", 0x010F, 2, 20), struct.pack("<HHL", 0x010F, 2, 20_000))
    else:
        content = encoded(gradient, file_format, exif=damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_photo(content).image.size == (24, 40)
        assert load_photo(content).notes == []


@pytest.mark.parametrize("kind, stored, is_applied", [("B", 6, True), ("L", 6, True), ("H", 9, False), ("f", 6, False)])
def test_an_orientation_of_another_type_is_applied_or_noted(gradient, kind, stored, is_applied):
    types = {"B": 1, "H": 3, "L": 4, "f": 11}
    entry = struct.pack(f"<HHL{kind}", EXIF_ORIENTATION, types[kind], 1, stored).ljust(12, b"\0")
    block = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4)
    photo = load_photo(encoded(gradient, "JPEG", exif=block))
    assert (photo.image.size == (24, 40)) is is_applied
    assert bool(photo.notes) is not is_applied


def test_a_chunk_that_promises_gigabytes_takes_none(gradient):
    import cv2

    content = cv2.imencode(".png", np.asarray(gradient).astype(np.uint16) * 257)[1].tobytes()
    start = time.perf_counter()
    assert "truncated or damaged" in refusal(content[:-12] + struct.pack(">L", 2**31 - 1) + b"tEXt")
    assert time.perf_counter() - start < 1


def test_transparency_is_laid_on_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = (255, 0, 0, 255)
    rgba[:, 2] = (0, 0, 0, 128)
    for source in (rgba, encoded(Image.fromarray(rgba)), Image.fromarray(rgba)):
        pixels = np.asarray(read_photo(source))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[0, 1].tolist() == [255, 0, 0]
        assert pixels[0, 2].tolist() == pytest.approx([127, 127, 127], abs=1)


def test_palette_transparency_is_laid_on_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putdata([0, 1])
    pixels = np.asarray(read_photo(encoded(palette, "PNG", transparency=0)))
    assert pixels[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_grey_bilevel_and_cmyk_become_rgb(gradient):
    grey = gradient.convert("L")
    assert np.array_equal(read_photo(grey), grey.convert("RGB"))
    assert read_photo(gradient.convert("1")).mode == "RGB"
    photo = read_photo(encoded(gradient.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.asarray(photo, int) - np.asarray(gradient, int)).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_mode_of_pillow_becomes_rgb(mode):
    assert read_photo(Image.new(mode, (4, 3))).mode == "RGB"


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    with pytest.warns(PhotoWarning, match="the bytes: it has several frames, of which only the first was read"):
        photo = read_photo(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert photo.size == (8, 6)
    assert photo.getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(file_format):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    expected = [0, 1, 128, 255]
    photo = read_photo(encoded(Image.fromarray(values), file_format))
    assert np.asarray(photo)[0, :, 0].tolist() == expected
    assert np.asarray(read_photo(values))[0, :, 0].tolist() == expected
    assert np.asarray(read_photo(Image.fromarray(values.astype(np.int32))))[0, :, 0].tolist() == expected


def test_float_images_of_pillow_go_from_0_to_1():
    photo = read_photo(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)))
    assert np.asarray(photo)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_arrays_of_every_shape_and_dtype(shape, dtype):
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    photo = read_photo(np.full(shape, top, dtype))
    assert photo.size == (7, 5)
    assert photo.getextrema() == ((255, 255),) * 3


def test_arrays_need_not_be_contiguous(gradient):
    pixels = np.asarray(gradient)
    assert np.array_equal(read_photo(pixels[::-1, ::-1]), pixels[::-1, ::-1])


def test_torch_tensors_are_channels_first(gradient):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(np.array(gradient)).permute(2, 0, 1)
    assert np.array_equal(read_photo(tensor), gradient)
    assert np.array_equal(read_photo((tensor / 255).requires_grad_()), gradient)


# --- the forms that people hold


def test_every_form_of_the_same_photo(gradient, tmp_path):
    content, path = encoded(gradient), tmp_path / "a photo.png"
    path.write_bytes(content)
    text = base64.b64encode(content).decode()
    at_its_end = io.BytesIO(content)
    at_its_end.read()
    forms = [at_its_end, {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}, path.as_uri(), text]
    forms += [f"data:image/png;base64,{text}", text.replace("+", "-").replace("/", "_").rstrip("="), path.open("rb")]
    for form in forms:
        assert np.array_equal(read_photo(form), gradient)
    assert at_its_end.tell() == len(content)


@pytest.mark.filterwarnings("ignore:.*nturl2path:DeprecationWarning")  # it is what Windows takes
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/my%20photos/a.jpg", r"C:\my photos\a.jpg"),
        ("file://localhost/C:/a.jpg", r"C:\a.jpg"),
        ("file://C:/a.jpg", r"C:\a.jpg"),
        ("file://server/share/a.jpg", r"\\server\share\a.jpg"),
        (r"C:\a.jpg", r"C:\a.jpg"),
        (r"\\server\share\a.jpg", r"\\server\share\a.jpg"),
    ],
)
def test_file_urls_and_paths_of_windows(url, path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "url2pathname", nturl2path.url2pathname)
        patch.setattr(os, "name", "nt")
        found = local_path(url)
    assert found == path


def test_forms_that_hold_no_photo(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "it is open as text. Open it in binary mode" in refusal((tmp_path / "notes.txt").open())
    assert refusal("data:image/png;base64").startswith("Cannot read the data URI: it has no comma")
    assert "its content is no base64" in refusal("data:image/png;base64,§§§")
    assert "must be of this machine, got one of 'host'" in refusal("file://host/a.jpg")
    assert "there is no such file" in refusal({"bytes": None, "path": "a.jpg"})
    assert "File name too long" in refusal("a" * 300)  # these letters are base64, but of no picture


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_few_bits_in_sixteen_are_scaled_by_their_own_range(bits, channels):
    import cv2

    top = 2**bits - 1
    values = np.linspace(0, top, 64).round().astype(np.uint16).reshape(8, 8)
    values = np.repeat(values[..., None], channels, 2)[..., :channels].squeeze()
    for suffix in (".png", ".tiff"):
        content = cv2.imencode(suffix, values)[1].tobytes()
        photo = load_photo(content)
        expected = values.reshape(8, 8, -1)[..., :1] / top * 255
        assert np.abs(np.asarray(photo.image, float) - expected).max() <= 1
        assert bool(photo.notes) is (bits < 16)
        assert not photo.notes or f"were read as {bits}-bit values" in photo.notes[0]


# --- HEIC, as phones write it


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=90, **options)
    return stream.getvalue()


@pytest.fixture
def corners():
    """A 96×64 picture whose upper left quarter is bright."""
    pixels = np.full((64, 96, 3), 30, np.uint8)
    pixels[:32, :48] = 220
    return Image.fromarray(pixels)


def test_heic_under_any_name_is_a_photo(corners, tmp_path):
    for name in ("a.heic", "b.jpg", "c.mp4", "d"):
        path = tmp_path / name
        path.write_bytes(heic(corners))
        assert np.abs(np.asarray(read_photo(path), float) - np.asarray(corners)).mean() < 3
        assert kind_of(path) == "photo"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright_by_its_own_properties_and_by_exif_alone(corners, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    expected = np.asarray(read_photo(encoded(corners, "JPEG", quality=95, exif=exif)), float)
    content = heic(corners, exif=exif.tobytes())
    assert np.abs(np.asarray(read_photo(content), float) - expected).mean() < 4
    if orientation > 1:  # renamed, the properties count no more, and EXIF speaks alone
        alone = content.replace(b"irot", b"free").replace(b"imir", b"free")
        assert np.abs(np.asarray(read_photo(alone), float) - expected).mean() < 4


@pytest.mark.parametrize("odd", [b"\xfe\xff\xff\xff", b"mime\0\xff\xff\0"])
def test_heic_items_whose_type_is_no_text_do_not_end_the_process(corners, odd):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 1
    content = heic(corners, exif=exif.tobytes())
    item = content.index(b"infe", content.index(b"infe") + 1)
    assert content[item + 12 : item + 16] == b"Exif"
    assert "truncated or damaged" in refusal(content[: item + 12] + odd + content[item + 12 + len(odd) :])
    assert read_photo(content).size == corners.size


def test_the_whole_grid_of_a_heic_is_read():
    path = Path("../shared/cases/heic_grid.heic")
    if not path.is_file():
        pytest.skip("the shared case is not here")
    assert read_photo(path).size == (512, 512)


# --- what is refused, and how


def test_odd_exif_costs_nothing_but_itself(gradient):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010E] = 6, "a description"
    content = encoded(gradient, "TIFF", exif=exif)
    exif_block = exif.tobytes().replace(struct.pack("<HH", 0x010E, 2), struct.pack("<HH", 0x010E, 11))  # FLOAT
    photo = load_photo(encoded(gradient, "JPEG", quality=95, exif=exif_block))
    assert photo.image.size == load_photo(content).image.size == (24, 40)
    assert photo.notes == []


@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.mp4"])
def test_only_regular_files_are_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "it is no regular file but a device, pipe or socket" in refusal(tmp_path / name)
    assert "it is no regular file" in refusal("/dev/zero")


def test_strips_are_refused():
    assert "sides of at most 65535 pixels, got 99000000×1 from the bytes" in refusal(png_header(99_000_000, 1))
    assert "sides of at most 65535 pixels" in refusal(np.zeros((1, 70_000), np.uint8))


def test_what_would_take_minutes_is_refused_at_once(gradient):
    jpeg = encoded(gradient, "JPEG")
    start = time.perf_counter()
    assert "at most 100 scans, got 151" in refusal(jpeg[:-2] + b"\xff\xda\x00\x02" * 150 + jpeg[-2:])
    assert "its header is longer than 64 KiB" in refusal(b"P6\n#" + b"x" * 10**7 + b"\n4 4 255\n" + bytes(48))
    assert "a plain PNM file must have at most 16 MiB and 100 comments" in refusal(b"P3 4 4 255 " + b"#x\n" * 10**6)
    assert time.perf_counter() - start < 5


def test_whatever_a_decoder_raises_names_the_file(gradient, tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    gradient.save(path)
    for error in (MemoryError(), RecursionError("too deep"), AttributeError("no attribute 'x'")):

        def broken(*_, error=error, **__):
            raise error

        monkeypatch.setattr(Image, "open", broken)
        assert refusal(path).startswith(f"Cannot read {str(path)!r}: ")


def test_a_float_file_gets_the_advice_for_a_file(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.float32([[0, 255]])).save(path)
    assert refusal(path) == (
        f"A float photo must have values from 0 to 1, got 0 to 255 in {str(path)!r}. Convert the file to an 8-bit PNG"
        " or JPEG."
    )


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "none.jpg") == (
        f"Cannot read {str(tmp_path / 'none.jpg')!r}: there is no such file. Check the path."
    )


def test_folder(tmp_path):
    assert refusal(str(tmp_path)) == (
        f"Cannot read {str(tmp_path)!r}: it is a folder. Pass the files in it one by one."
    )


def test_unreadable_path():
    assert refusal("a\0b.jpg").startswith(r"Cannot read 'a\x00b.jpg': ")


def test_encoded_text_passed_as_a_path_is_not_echoed():
    message = refusal("iVBORw0KGgo" * 1000)
    assert "(11000 characters)" in message
    assert len(message) < 200


def test_empty_file(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert refusal(path) == f"Cannot read {str(path)!r}: it is empty. Download or export it again."
    assert "Cannot read the bytes: it is empty" in refusal(b"")


def test_text_file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_text("a private note")
    message = refusal(path)
    assert message == (
        f"Cannot read {str(path)!r}: its content is no image in a supported format "
        "(JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, JPEG2000, PPM, HEIF). Convert it to JPEG or PNG."
    )
    assert "private" not in message


def test_postscript_is_not_run():
    assert "content is no image" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_file(file_format, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, file_format)
    path = tmp_path / "photo"
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path) == (
        f"Cannot read {str(path)!r}: the image is truncated or damaged. Download or export it again."
    )


def test_size_is_refused_before_decoding():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.perf_counter()
        message = refusal(png_header(20_000, 20_000))
        assert time.perf_counter() - start < 1
        assert message.startswith("A photo must have at most 100 megapixels, got 400 from the bytes. ")
        assert message.endswith("Shrink it, or raise `max_pixels` if you trust it.")
        assert "at most 100 megapixels, got 120 from" in refusal(png_header(12_000, 10_000))  # Pillow would only warn


def test_pillows_own_limit_is_named_when_it_decides():
    message = refusal(png_header(20_000, 20_000), max_pixels=10**9)
    assert message.startswith("A photo must have at most 179 megapixels, got 400 from the bytes. ")
    assert "raise `PIL.Image.MAX_IMAGE_PIXELS`" in message


def test_max_pixels_holds_for_every_kind(gradient):
    assert "at most 0.0001 megapixels, got 0.00096 from the PIL image" in refusal(gradient, max_pixels=100)
    assert "got 0.00096 from the array" in refusal(np.asarray(gradient), max_pixels=100)
    assert read_photo(gradient, max_pixels=960).size == (40, 24)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 5), (1, 4, 4, 3), (3, 8, 9)])
def test_array_shape(shape):
    assert refusal(np.zeros(shape)) == (
        f"A photo array must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {shape}. "
        "Pass one photo, channels last."
    )


def test_array_without_pixels():
    assert refusal(np.zeros((0, 5, 3))) == (
        "A photo must have pixels, got an array of shape (0, 5, 3). Pass another photo."
    )


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "U1"])
def test_array_dtype(dtype):
    array = np.zeros((4, 4), dtype)
    assert refusal(array) == (
        f"A photo array must be uint8, uint16 or float, got {array.dtype}. "
        "Convert values from 0 to 255 with `photo.astype('uint8')`."
    )


def test_array_with_nan():
    array = np.zeros((4, 4))
    array[0, :2] = np.nan, np.inf
    assert refusal(array) == (
        "A photo array must be finite, got 2 NaN or infinite values. "
        "Replace them before, for instance with `numpy.nan_to_num`."
    )


def test_float_array_out_of_range():
    assert refusal(np.array([[-1.5, 255.0]])) == (
        "A float photo must have values from 0 to 1, got -1.5 to 255. "
        "Divide by its largest possible value, or pass uint8."
    )


def test_integers_beyond_16_bits():
    image = Image.fromarray(np.array([[-3, 70_000]], np.int32))
    assert refusal(image) == (
        "A gray photo must have values from 0 to 65535, got -3 to 70000 in the PIL image. Scale it to 16 bits."
    )


def test_mode_without_conversion():
    assert refusal(Image.new("La", (4, 4))) == (
        "Cannot convert the PIL image to RGB: Pillow has no conversion from mode La. Save it as an RGB PNG."
    )


def test_tensor_shape_and_dtype():
    torch = pytest.importorskip("torch")
    assert refusal(torch.zeros(8, 9, 3)) == (
        "A photo tensor must have shape (3, H, W), got (8, 9, 3). "
        "Pass one photo of the batch, or `photo.numpy()` if it is H×W×3."
    )
    assert refusal(torch.zeros(3, 8, 9, dtype=torch.bfloat16)) == (
        "A photo tensor must have a dtype that numpy knows, got torch.bfloat16. Pass `photo.float()`."
    )


@pytest.mark.parametrize("source", [None, 3, ["a.jpg"], {"file": "a.jpg"}])
def test_other_types(source):
    assert refusal(source) == (
        "A photo must be a path, URL, bytes, open file, PIL image, array or tensor, "
        f"got {type(source).__name__}. Pass one photo at a time in one of these forms."
    )


# --- URLs, from a server of our own


class Handler(http.server.BaseHTTPRequestHandler):
    content = b""
    drips = {  # what a hostile server begins with, and repeats
        "/headers": (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
        "/continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "/empty-blocks": (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\na\r\n"
            + gzip.compress(b"")[:10] + b"\r\n", b"5\r\n\0\0\0\xff\xff\r\n",
        ),
    }  # fmt: skip

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path in self.drips:
            self.drip(path)
            return
        if path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/photo.png")
            self.end_headers()
            return
        self.send_response(404 if path == "/none" else 200)
        self.end_headers()
        if path == "/slow":
            with contextlib.suppress(BrokenPipeError):  # the reader has given up, as it should
                for _ in range(20):
                    time.sleep(0.05)
                    self.wfile.write(b".")
                    self.wfile.flush()
            return
        self.wfile.write(b"<html>" if path in ("/none", "/page") else self.content)

    def drip(self, path):
        first, again = self.drips[path]
        with contextlib.suppress(OSError):  # the reader has given up, as it should
            self.wfile.write(first)
            for _ in range(200):
                self.wfile.write(again)
                self.wfile.flush()
                time.sleep(0.02)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(gradient, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(Handler, "content", encoded(gradient))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_url(server, gradient):
    assert np.array_equal(read_photo(f"{server}/photo.png"), gradient)
    assert np.array_equal(read_photo(f"{server}/moved"), gradient)


def test_url_status(server):
    assert refusal(f"{server}/none?token=secret") == (
        f"Cannot download '{server}/none': the server answered with status 404. Check the address in a browser."
    )


def test_url_too_large(server, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_DOWNLOAD_BYTES", 50)
    assert refusal(f"{server}/photo.png") == (
        f"Cannot download '{server}/photo.png': it is larger than 4.76837e-05 MiB. "
        "Download it yourself and pass a smaller file."
    )


def test_url_of_a_page(server):
    assert f"Cannot read '{server}/page': its content is no image" in refusal(f"{server}/page")


def test_url_too_slow(server):
    assert refusal(f"{server}/slow", timeout=0.2) == (
        f"Cannot download '{server}/slow': no complete answer within 0.2 s. Raise `timeout`."
    )


@pytest.mark.parametrize("path", sorted(Handler.drips))
def test_one_deadline_holds_whatever_the_server_does(server, path):
    start = time.perf_counter()
    assert "no complete answer within 0.3 s" in refusal(f"{server}{path}", timeout=0.3)
    assert time.perf_counter() - start < 2
    for thread in threading.enumerate():
        if thread.name == "download":
            thread.join(2)
            assert not thread.is_alive()


def test_redirects_lead_to_the_web_only_and_on_request_to_public_addresses_only(server, monkeypatch):
    assert "it leads to an address of the kind 'file'" in refusal(f"{server}/elsewhere")
    monkeypatch.setenv("HF_GEAAU_PUBLIC_URLS_ONLY", "1")
    assert refusal(f"{server}/photo.png") == (
        f"Cannot download '{server}/photo.png': it leads to an address that is not public."
        " Unset HF_GEAAU_PUBLIC_URLS_ONLY to allow that."
    )


def test_url_unreachable(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    assert refusal("http://user:secret@127.0.0.1:9/photo.jpg?token=secret") == (
        "Cannot download 'http://127.0.0.1:9/photo.jpg': ConnectError. Check the address and the network."
    )
    assert "secret" not in refusal("http://me:secret@[host/photo.jpg")
