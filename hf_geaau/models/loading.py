"""Load a checkpoint; whatever is wrong with it becomes an error of one line.

A checkpoint may come from anybody. Its JSON is bounded and checked before anything is built from it, and its tensors
must be exactly those of the model before memory for them is allocated.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoImageProcessor

from hf_geaau.errors import CheckpointError, DeviceError, hide_secrets
from hf_geaau.files import parse_json

from .geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauModel
from .zoo import BUNDLED_CHECKPOINT, find_checkpoint, quoted

__all__ = ["BUNDLED_CHECKPOINT", "check_device", "load_checkpoint", "load_network"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")  # in the order in which transformers reads them
_NOT_FROM_FILES = ("device", "return_tensors", "input_data_format")
PROCESSORS = (None, "GeaauImageProcessor", "GeaauImageProcessorPil")

# Our choice of limits: JSON of ours has 5 kB, the index of 10,000 tensors and a header of as many have 1 MB.
MAX_JSON_BYTES = 1 << 20
MAX_INDEX_BYTES = 1 << 24
MAX_HEADER_BYTES = 1 << 24
MAX_DERIVED_BYTES = 1 << 28
"""Memory of what a model derives from its config, such as attention masks. Ours and timm's defaults need far less."""

# What transformers renames on loading, so that old checkpoints load.
_OLD_NAMES = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}
_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U8", "BOOL"}

Layout = Mapping[str, tuple[tuple[int, ...], str]]


def load_checkpoint(
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    must_predict: bool = False,
) -> tuple[Any, Any]:
    """Load a model and its image processor.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Hub token; None for the one that `hf auth login` stored.
        must_predict: Refuse expression encoders, which predict no AUs.

    Returns:
        A `GeaauModel`, or a `GeaauForExpressionEmbedding` where the config names that, in evaluation mode; and its
        image processor.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, not in safetensors, or not whole; if its
            settings are out of range; or if the Hub does not serve it.
    """
    folder = find_checkpoint(model, revision, token)
    with _one_line_errors(folder):
        config = _read_config(folder)
        if must_predict and _is_encoder(config):
            raise CheckpointError(
                f"{quoted(folder)} is an expression encoder, which predicts no AUs. Train the second stage from it"
                " first; see `GeaauModel.from_expression_encoder`."
            )
        processor = _load_processor(folder, config)
    return load_network(folder), processor


def load_network(folder: str | Path) -> Any:
    """Load the model of a checkpoint, without its image processor.

    Args:
        folder: The checkpoint, as `find_checkpoint` returns it.

    Returns:
        A `GeaauModel`, or a `GeaauForExpressionEmbedding` where the config names that, in evaluation mode.

    Raises:
        CheckpointError: If the config is wrong; if a tensor is missing, left over, of another shape or not finite; or
            if the weights are not safetensors.
    """
    folder = Path(folder)
    with _one_line_errors(folder), ExitStack() as stack:
        config = _read_config(folder)
        files = _open_weights(folder, stack)
        slices = {name: file.get_slice(name) for name, file in files.items()}
        layout = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        kind: Any = GeaauForExpressionEmbedding if _is_encoder(config) else GeaauModel

        class Checked(kind):
            """The model, compared with the files as soon as it is built, which happens on the meta device."""

            def __init__(self, config: GeaauConfig) -> None:
                super().__init__(config)
                _check_tensors(self, layout)

        # From tensors instead of from the folder, where transformers would also follow adapters and pickles.
        tensors = {name: file.get_tensor(name) for name, file in files.items()}
        network = Checked.from_pretrained(None, config=config, state_dict=tensors)
        network.__class__ = kind
        network.name_or_path = network.config.name_or_path = str(folder)
        _check_values(network)
        return network.eval()


def check_device(device: Any) -> None:
    """Check that torch can use a device before anything is loaded.

    Raises:
        DeviceError: If it cannot.
    """
    try:
        if torch.empty(0, device=device).device.type == "meta":
            raise RuntimeError("it computes shapes, no values")
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # by the kind of device
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DeviceError(
            f"`device` must be one that torch can use here, got '{device}': {reason}."
            " Leave it out to use the best one available."
        ) from error


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, RuntimeError, SafetensorError … here
        reason = hide_secrets(" ".join(str(error).split())) or type(error).__name__
        raise CheckpointError(f"Cannot load the checkpoint {quoted(folder)}: {reason[:350]}") from error


def _refusal(folder: Path, why: str, remedy: str) -> CheckpointError:
    return CheckpointError(f"Cannot load the checkpoint {quoted(folder)}: {why}. {remedy}")


# --- settings ---


def _read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object of a checkpoint."""
    advice = "Save it again with save_pretrained."
    if not path.is_file():  # a pipe would wait for ever
        raise _refusal(path.parent, f"its {path.name} is no file", advice)
    if path.stat().st_size > limit:
        raise _refusal(path.parent, f"its {path.name} has more than {limit:,} bytes", advice)

    def refuse(literal: str) -> None:
        raise ValueError(f"it holds {literal}, which is no number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(names := dict(pairs)) < len(pairs):
            raise ValueError("it has the same key twice")
        return names

    try:
        content = parse_json(path.read_text(encoding="utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except ValueError as error:
        raise _refusal(path.parent, f"cannot read {path.name} as JSON ({str(error)[:100]})", advice) from error
    if not isinstance(content, dict):
        raise _refusal(path.parent, f"its {path.name} holds a {type(content).__name__}, not an object", advice)
    return content


def _read_config(folder: Path) -> GeaauConfig:
    content = _read_json(folder / "config.json")
    kind = content.get("model_type")
    if kind is None:
        raise _refusal(folder, "its config.json names no model type", "Save it again with save_pretrained.")
    if kind != GeaauConfig.model_type:
        raise CheckpointError(
            f"{quoted(folder)} is not a checkpoint of hf_geaau: its model type is '{str(kind)[:60]}'. Pass another one."
        )
    if content.get("quantization_config") is not None:
        raise _refusal(folder, "it is quantized", "Save the weights as floats.")
    if (folder / "adapter_config.json").exists():
        raise _refusal(folder, "it holds an adapter, which would be left out", "Merge it into the weights.")
    config: GeaauConfig = GeaauConfig.from_dict(content)
    return config


def _is_encoder(config: GeaauConfig) -> bool:
    return GeaauForExpressionEmbedding.__name__ in (config.architectures or [])


def _load_processor(folder: Path, config: GeaauConfig) -> Any:
    contents = [_read_json(folder / name) for name in PROCESSOR_FILES if (folder / name).exists()]
    if not contents:
        raise _refusal(folder, "it has no preprocessor_config.json", "Save its image processor with save_pretrained.")
    nested = next((content["image_processor"] for content in contents if "image_processor" in content), contents[-1])
    kind = nested.get("image_processor_type") if isinstance(nested, dict) else nested
    if kind not in PROCESSORS:
        raise _refusal(
            folder, f"its image processor is of another model ('{str(kind)[:60]}')", "Save that of GTLE-Net beside it."
        )
    elsewhere = [name for name in _NOT_FROM_FILES if nested and nested.get(name) is not None]
    if elsewhere:
        raise _refusal(folder, f"its image processor sets '{elsewhere[0]}', which the caller decides", "Remove it.")
    return AutoImageProcessor.from_pretrained(str(folder), config=config, trust_remote_code=False)


# --- weights ---


def _open_weights(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Open the files of the weights, and return the one that holds each tensor."""
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        file = stack.enter_context(_open_safetensors(folder, WEIGHTS))
        return dict.fromkeys(file.keys(), file)
    index = _read_json(folder / INDEX, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise _refusal(folder, f"its {INDEX} has no `weight_map` of names", "Save it again with save_pretrained.")
    names = sorted(set(index.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise _refusal(
                folder, f"its {INDEX} names '{name[:60]}', which is no safetensors file beside it", "Do not use it."
            )
    files: dict[str, Any] = {}
    for name, file in [(name, stack.enter_context(_open_safetensors(folder, name))) for name in names]:
        held = set(file.keys())
        if held != {tensor for tensor, where in index.items() if where == name}:
            raise _refusal(
                folder, f"its {INDEX} does not name what '{name[:60]}' holds", "Save it again with save_pretrained."
            )
        files |= dict.fromkeys(held, file)
    return files


def _open_safetensors(folder: Path, name: str) -> Any:
    """Open a file of weights; safetensors itself checks that the header fits the file."""
    path, advice = folder / name, "Copy it again, or save it again with save_pretrained."
    if not path.is_file():
        raise _refusal(folder, f"it has no file {name[:60]}", advice)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise _refusal(folder, f"{name[:60]} is truncated, or not safetensors", advice)
    return safe_open(path, framework="pt")


def _check_tensors(network: nn.Module, layout: Layout) -> None:
    """Compare the tensors of a model that is not allocated yet with those in its files."""
    expected: dict[str, torch.Tensor] = network.state_dict(keep_vars=True)
    found = {_current_name(name, expected): entry for name, entry in layout.items()}
    held = {id(expected[name]) for name in found if name in expected}
    misshapen = [
        f"{name} ({_layout_text(found[name])} instead of {tuple(tensor.shape)})"
        for name, tensor in expected.items()
        if name in found and not _fits(tensor, *found[name])
    ]
    problems = {
        "lack": [name for name, tensor in expected.items() if id(tensor) not in held],  # a tied tensor is there once
        "hold what the model has not:": [name for name in found if name not in expected],
        "have another shape or type:": misshapen,
    }
    told = [f"{what} {_listed(names)}" for what, names in problems.items() if names]
    if told or len(found) < len(layout):
        what = "; ".join(told) or "name a tensor twice"
        raise ValueError(f"its weights do not fit its config: they {what}. Copy it again, or save it again.")
    derived = [buffer for name, buffer in network.named_buffers() if name not in expected]
    if sum(buffer.numel() * buffer.element_size() for buffer in derived) > MAX_DERIVED_BYTES:
        raise ValueError(f"its config asks for tables of more than {MAX_DERIVED_BYTES:,} bytes.")


def _current_name(name: str, expected: Mapping[str, Any]) -> str:
    """Return the name that transformers gives a tensor of an older checkpoint."""
    new = name
    for old, current in _OLD_NAMES.items():
        new = new.replace(old, current)
    candidates = (name, new, new.removeprefix(f"{GeaauModel.base_model_prefix}."))
    return next((candidate for candidate in candidates if candidate in expected), name)


def _fits(tensor: torch.Tensor, shape: tuple[int, ...], dtype: str) -> bool:
    return shape == tuple(tensor.shape) and dtype in (_FLOATS if tensor.is_floating_point() else _INTEGERS)


def _layout_text(entry: tuple[tuple[int, ...], str]) -> str:
    return f"{entry[1]} {entry[0]}"[:40]


def _listed(names: list[str]) -> str:
    """Return up to three names, and how many there are beside them."""
    shown = ", ".join(" ".join(name[:70].split()) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _check_values(network: nn.Module) -> None:
    """Check that every tensor is finite after the conversion to the model's type, and that no variance is negative."""
    state = network.state_dict()
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise ValueError(f"its weights hold NaN or infinity: {_listed(wrong)}.")
    negative = [name for name, tensor in state.items() if name.endswith("running_var") and (tensor < 0).any()]
    if negative:
        raise ValueError(f"its weights hold negative variances: {_listed(negative)}.")
