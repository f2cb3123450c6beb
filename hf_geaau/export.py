"""Export a model as one self-contained network for ONNX Runtime or OpenVINO, verified against torch.

The network takes `pixel_values`, (B, 3, height, width) float32 RGB pixels from 0 to 255 of aligned crops, and
normalizes them itself. Its outputs are `logits`, `probabilities` (calibrated) and, if the model has them, `intensities`
(0 to 5), and `visibility`, each (B, N), and `side_probabilities` (B, N, 2), of the person's left and right;
`embedding` (B, D); and `masks` (B, N, h, w). Files are named and placed as Optimum and Transformers.js do.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.backends import ONNX_FILE, OPENVINO_FILE, load_analyzer, load_runner, source_digest
from hf_geaau.backends.exported import INPUT, METADATA
from hf_geaau.backends.torch_runner import TorchRunner, normalization
from hf_geaau.data import get_dataset, load, open_aligned
from hf_geaau.errors import CardError, CheckpointError, DatasetWarning, FaceNotFoundError, MissingExtraError, PhotoError
from hf_geaau.faces import read_photo
from hf_geaau.files import whole_file
from hf_geaau.inference import OPTIONAL_OUTPUTS, FaceAnalyzer, Prediction, Runner
from hf_geaau.metrics import au_auc
from hf_geaau.models.geaau.licensing_geaau import bound_data
from hf_geaau.models.loading import load_checkpoint
from hf_geaau.models.zoo import find_checkpoint, quoted
from hf_geaau.onnx_runtime import import_onnxruntime
from hf_geaau.video.sources import find_sources

FORMATS, DTYPES = ("onnx", "openvino"), ("fp32", "fp16", "int8")

# Largest difference of a probability from torch's. fp32 is what the backends promise; the others are our choice, far
# above what the bundled weights show (docs/performance.md), to catch a network that overflows or lost a layer.
LARGEST_CHANGE = {"fp32": 1e-4, "fp16": 0.02, "int8": 1.0}  # of int8 the mean and AUC decide
LARGEST_OTHER_CHANGE = 1e-3  # of fp32: logits, intensities, embedding and masks
LARGEST_MEAN_CHANGE = 0.03
LARGEST_AUC_LOSS = 0.005
VERIFIED_FACES = 8
MIN_CALIBRATION_FACES = 32


@dataclass(frozen=True)
class Export:
    """An exported network and how it was compared with torch.

    Attributes:
        path: The file.
        dtype: Of weights and activations.
        faces: Faces that were compared: those that were given, or random pictures.
        largest_change: Largest absolute difference of a probability from torch's.
        mean_change: The mean.
        auc: Mean AUC over AUs of torch and of the network, on the faces with labels; None without labels.
    """

    path: Path
    dtype: str
    faces: int
    largest_change: float
    mean_change: float
    auc: tuple[float, float] | None = None

    @property
    def auc_loss(self) -> float | None:
        """How much AUC the network loses against torch; None without labels."""
        return None if self.auc is None else self.auc[0] - self.auc[1]


class _Network(torch.nn.Module):
    """A model that takes pixels and returns what a `Prediction` holds."""

    def __init__(self, model: Any, image_processor: Any) -> None:
        super().__init__()
        self.model = model
        factor, shift = (torch.from_numpy(values)[None] for values in normalization(image_processor))
        self.pixel_factor, self.pixel_shift = torch.nn.Buffer(factor), torch.nn.Buffer(shift)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        output = self.model(pixel_values=pixel_values * self.pixel_factor + self.pixel_shift)
        values = {"logits": output.logits, "probabilities": (output.logits / self.model.config.temperature).sigmoid()}
        if output.intensities is not None:
            values["intensities"] = output.intensities
        if output.side_logits is not None:
            values["side_probabilities"] = (output.side_logits / self.model.config.temperature).sigmoid()
        if output.visibility_logits is not None:
            values["visibility"] = output.visibility_logits.sigmoid()
        values["embedding"] = output.expression_embedding
        if output.au_masks is not None:
            values["masks"] = output.au_masks
        return values


def export(
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    format: str = "onnx",
    dtype: str = "fp32",
    crops: NDArray[np.uint8] | None = None,
    labels: NDArray[np.floating] | None = None,
) -> Export:
    """Export a checkpoint that predicts AUs; nothing is written if the network differs from torch.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        output: The folder to write into, below `onnx/` or `openvino/`; None for that of the checkpoint.
        format: "onnx" or "openvino".
        dtype: "fp32"; "fp16", half the size, for GPUs and browsers; or "int8", less than half, as ONNX only.
        crops: (F, height, width, 3) aligned crops to compare on. int8 needs at least 32: it is calibrated on the even
            rows and compared on the odd ones.
        labels: (F, N) 1 present, 0 absent, -1 not labeled, in the order of the model's AUs, to compare AUC.

    Raises:
        CheckpointError: If the checkpoint does not load, cannot be exported, or the network differs from torch: a
            probability by more than LARGEST_CHANGE, in the mean by more than LARGEST_MEAN_CHANGE, or AUC by more than
            LARGEST_AUC_LOSS.
        CardError: If the metadata of the checkpoint's card, which name its license, cannot be read.
        MissingExtraError: Without the packages of the extra "export".
        ValueError: If a format or dtype is unknown, or int8 lacks faces or is asked of OpenVINO.
    """
    for name, value, known in (("format", format, FORMATS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}, got '{value}'.")
    if dtype == "int8" and format == "openvino":
        raise ValueError("int8 is offered as ONNX only: converted to OpenVINO, mean AUC on real photos fell by .008.")
    if dtype == "int8" and (crops is None or len(crops) < MIN_CALIBRATION_FACES):
        given = 0 if crops is None else len(crops)
        raise ValueError(f"int8 needs at least {MIN_CALIBRATION_FACES} faces to calibrate on, got {given}. Pass more.")
    _require(format)
    folder = find_checkpoint(None if model is None else os.fspath(model))
    network, image_processor = load_checkpoint(folder, must_predict=True)
    runner = TorchRunner(network.float().cpu(), image_processor)
    target, metadata = Path(output or folder) / _file_name(format, dtype), _metadata(folder, runner, dtype)
    seen = _patterns(runner.facts.size) if crops is None else crops
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain = Path(scratch, "plain.onnx")
        _write_onnx(plain, _Network(network, image_processor), runner.facts.size, quoted(folder))
        made = _converted(plain, format, dtype, seen[::2], metadata)
        compared = slice(1, None, 2) if dtype == "int8" else slice(None)
        kept = None if labels is None else np.asarray(labels)[compared]
        candidate = load_runner(made, backend=format, keep=OPTIONAL_OUTPUTS)
        report = _compare(runner, candidate, seen[compared], kept, target, dtype)
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in sorted(made.parent.glob(f"{made.stem}.*"), key=lambda path: path == made):  # the .xml last
            with whole_file(target.with_suffix(part.suffix)) as whole:
                shutil.copyfile(part, whole)
    return report


def faces_for(
    model: str | os.PathLike[str] | None, source: str | os.PathLike[str], *, aligned: bool = False, limit: int = 2000
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return crops to compare an exported network on, and their labels if they have any.

    Args:
        model: The checkpoint whose crops and AUs are meant.
        source: Rendered faces (`hf-geaau render`), a table of your own (the dataset `folder`), a photo, or a folder
            of photos, of which the largest faces are taken.
        aligned: The images of a table or the photos are aligned crops.
        limit: Largest number of faces, spread evenly over the source.

    Returns:
        (F, height, width, 3) crops; and (F, N) labels in the order of the model's AUs, or None for photos.

    Raises:
        DatasetError, DatasetNotFoundError: If a table or rendered faces cannot be read.
        FaceNotFoundError: If there is no face.
    """
    analyzer = load_analyzer(None if model is None else os.fspath(model), aligned=aligned)
    path = Path(source)
    if (path / "labels.parquet").is_file() or path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
        return _labeled_faces(analyzer, path, aligned, limit)
    crops = []
    photos = [found for found in find_sources([path]).sources if found.kind == "photo"]
    for photo in _spread(photos, limit):
        with contextlib.suppress(PhotoError):  # a file that cannot be read is no face
            image = np.asarray(read_photo(photo.location))
            crops += [analyzer.crop(image, [face]) for face in analyzer.find(image)[:1]]
    if not crops:
        raise FaceNotFoundError(f"Cannot find a face in {quoted(path)}. Pass photos, a table or rendered faces.")
    return np.concatenate(crops), None


def _labeled_faces(
    analyzer: FaceAnalyzer, path: Path, aligned: bool, limit: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # of people in train and test: nothing is trained here
        if path.is_dir():
            rows, units = load("synthetic", path, fold=None, split="train"), get_dataset("synthetic").aus
        else:
            rows = open_aligned("folder", path, fold=None, split="train", aligned=aligned)
            units = get_dataset("folder", aligned=aligned).resolved(path)[0].aus
    rows = rows.select(_spread(range(len(rows)), limit))
    crops = [analyzer.runner.crop(row["image"].convert("RGB")) for row in rows]
    numbers = [int(name[2:]) for name in analyzer.runner.action_units]
    return np.concatenate(crops), facs.remap(np.array(rows["labels"], np.float32), units, numbers)


def _spread(items: Sequence[Any], limit: int) -> Sequence[Any]:
    """Return at most `limit` of the items, at even distances."""
    return items[:: -(-len(items) // limit)] if len(items) > limit else items


def _file_name(format: str, dtype: str) -> Path:
    """Return the path below the folder of a checkpoint, as Optimum and Transformers.js name it."""
    plain = ONNX_FILE if format == "onnx" else OPENVINO_FILE
    return plain if dtype == "fp32" else plain.with_stem(f"{plain.stem}_{dtype}")


def _metadata(folder: Path, runner: TorchRunner, dtype: str) -> str:
    """Return what a network says of itself: all that is needed to cut its crops and read its outputs."""
    import hf_geaau

    facts, config = runner.facts, runner.model.config
    content = {
        "name": folder.name,
        "action_units": facts.action_units,
        "thresholds": facts.thresholds.round(6).tolist(),
        "temperature": float(config.temperature),
        "size": facts.size,
        "crop_template": facts.crop_template.tolist(),
        "points": "image-left eye, image-right eye, nose tip, image-left mouth corner, image-right mouth corner",
        "input": f"{INPUT}: (B, 3, height, width) float32 RGB of aligned crops, 0 to 255",
        "dtype": dtype,
        "trained_on": list(config.trained_on or []),
        "license": _license(folder),
        "licenses_bound_by": bound_data(config.trained_on),
        "version": hf_geaau.__version__,
        "source_digest": source_digest(folder),
    }
    return json.dumps(content)


def _license(folder: Path) -> str | None:
    """Return the license that the card of a checkpoint states."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    try:
        stated = ModelCard.load(card).data.get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(
            f"Cannot read the metadata of the card {quoted(card)}: {' '.join(str(error).split())[:200]}. Repair it, or"
            " delete the file."
        ) from error
    return None if stated is None else str(stated)


def _write_onnx(path: Path, network: _Network, size: tuple[int, int], name: str) -> None:
    example = torch.zeros(2, 3, *size)
    with torch.inference_mode():
        names = list(network.eval()(example))
    try:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=names,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    except Exception as error:  # of torch.export, onnxscript or onnx, in no common class
        raise CheckpointError(f"Cannot export {name}: {' '.join(str(error).split())[:200]}") from error
    assert program is not None
    program.save(path)


def _converted(plain: Path, format: str, dtype: str, faces: NDArray[np.uint8], metadata: str) -> Path:
    """Convert the fp32 network to a dtype and format, and write the metadata into it."""
    import onnx

    import_onnxruntime()  # before its tools are imported
    made = plain.with_name("network.onnx")
    if dtype == "int8":
        _quantize(plain, made, faces)
    else:
        model = onnx.load(plain)
        if dtype == "fp16" and format == "onnx":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            model = convert_float_to_float16(model, keep_io_types=True)
        onnx.save(model, made)
    if format == "onnx":
        model = onnx.load(made)
        onnx.helper.set_model_props(model, {METADATA: metadata})
        onnx.save(model, made)
        return made
    import openvino

    converted = openvino.convert_model(made)
    converted.set_rt_info(metadata, [METADATA])
    openvino.save_model(converted, made.with_suffix(".xml"), compress_to_fp16=dtype == "fp16")
    made.unlink()
    return made.with_suffix(".xml")


def _quantize(plain: Path, target: Path, faces: NDArray[np.uint8]) -> None:
    """Quantize convolutions and matrix products to 8 bits, the weights by channel.

    The first convolution and depthwise ones stay exact: they hold few weights, and with them the bundled weights lost
    .005 of mean AUC on rendered faces instead of .0001.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Faces(CalibrationDataReader):
        """Feeds crops, sixteen at a time."""

        def __init__(self) -> None:
            batches = np.array_split(faces, max(1, len(faces) // 16))
            self.batches: Iterator[Any] = iter([np.moveaxis(batch, -1, 1).astype(np.float32) for batch in batches])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            pixels = next(self.batches, None)
            return None if pixels is None else {INPUT: pixels}

    import onnx

    prepared = plain.with_name("prepared.onnx")
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # which fails on the dynamic batch
    convolutions = [node for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    exact = [node.name for node in convolutions if any(each.name == "group" and each.i > 1 for each in node.attribute)]
    quantize_static(
        prepared, target, Faces(),
        per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
        calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=["Conv", "MatMul"],
        nodes_to_exclude=exact + [node.name for node in convolutions[:1]],
    )  # fmt: skip


def _compare(
    before: Runner,
    after: Runner,
    crops: NDArray[np.uint8],
    labels: NDArray[np.floating] | None,
    target: Path,
    dtype: str,
) -> Export:
    """Compare a network with torch.

    Raises:
        CheckpointError: If it differs by more than the limits.
    """
    expected, found = (_over(runner, crops) for runner in (before, after))
    changes = np.abs(_of(expected, "probabilities") - _of(found, "probabilities"))
    auc = None
    if labels is not None:
        probabilities = (_of(each, "probabilities") for each in (expected, found))
        torchs, networks = (float(au_auc(labels, values)["mean"]["auc"]) for values in probabilities)
        auc = None if np.isnan(torchs) else (torchs, networks)  # NaN without both kinds of labels
    report = Export(target, dtype, len(crops), float(changes.max()), float(changes.mean()), auc)
    names = ("logits", "intensities", *OPTIONAL_OUTPUTS)
    exact = [name for name in names if getattr(expected, name) is not None]
    others = {name: float(np.abs(_of(expected, name) - _of(found, name)).max()) for name in exact}
    if dtype == "fp32" and max(others.values()) > LARGEST_OTHER_CHANGE:
        name = max(others, key=lambda each: others[each])
        raise CheckpointError(
            f"The exported network differs from torch: {name} by {others[name]:.2g}. Nothing written."
        )
    limits = {
        "a probability": (report.largest_change, LARGEST_CHANGE[dtype]),
        "probabilities in the mean": (report.mean_change, LARGEST_MEAN_CHANGE),
        "AUC": (report.auc_loss or 0.0, LARGEST_AUC_LOSS),
    }
    for what, (value, limit) in limits.items():
        if not value <= limit:
            raise CheckpointError(
                f"The exported network differs from torch: {what} by {value:.2g}, at most {limit:g} is allowed as"
                f" {dtype}. Nothing was written. Use another dtype."
            )
    return report


def _over(runner: Runner, crops: NDArray[np.uint8]) -> Prediction:
    return Prediction.concatenate([runner(batch) for batch in np.array_split(crops, max(1, len(crops) // 32))])


def _of(prediction: Prediction, name: str) -> NDArray[np.float32]:
    return np.asarray(getattr(prediction, name))


def _patterns(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return pictures to compare on where no faces are given: noise of several scales and contrasts."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(VERIFIED_FACES):
        coarse = rng.uniform(0, 255, (4 * 2 ** (index % 4), 4 * 2 ** (index % 4), 3)).astype(np.uint8)
        rows, columns = (np.arange(side) * len(coarse) // side for side in size)
        pictures.append(coarse[rows][:, columns])
    return np.stack(pictures)


def _require(format: str) -> None:
    import importlib.util

    needed = ["onnx", "onnxscript", "onnxruntime"] + ["openvino"] * (format == "openvino")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise MissingExtraError(
            f"Exporting needs {', '.join(missing)}. Install it with `pip install 'hf_geaau[export]'`."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress that exporters print to the console out of the output."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
