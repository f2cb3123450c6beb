"""Checkpoints that are damaged, incomplete or made to do harm are refused in one line; whole ones load as before."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_geaau import GeaauForExpressionEmbedding, GeaauImageProcessor, GeaauModel
from hf_geaau.errors import CheckpointError, TrainingError
from hf_geaau.hub import export_remote_code
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, load_checkpoint
from hf_geaau.training import load_recipe

Change = Callable[[Path, random.Random], Any]
KINDS: dict[str, tuple[str, Change]] = {}
SEEDS = 3  # for kinds that choose something at random


def kind(words: str, name: str | None = None) -> Callable[[Change], Change]:
    """Register a way to spoil a checkpoint, with words that the error must hold."""

    def register(change: Change) -> Change:
        KINDS[name or change.__name__] = (words, change)
        return change

    return register


# --- weights ---


def tensors(change: Callable[[dict[str, torch.Tensor], random.Random], Any]) -> Change:
    def apply(folder: Path, rng: random.Random) -> None:
        state = load_file(folder / "model.safetensors")
        change(state, rng)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def any_float(state: dict[str, torch.Tensor], rng: random.Random) -> str:
    return rng.choice([name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim])


def drop_half(state: dict[str, torch.Tensor], rng: random.Random) -> None:
    for name in rng.sample(sorted(state), len(state) // 2):
        del state[name]


def leave_over(state: dict[str, torch.Tensor], rng: random.Random) -> None:
    state["extra"] = torch.ones(rng.randint(1, 9))


def poison(value: float) -> Change:
    def change(state: dict[str, torch.Tensor], rng: random.Random) -> None:
        tensor = state[any_float(state, rng)]
        tensor.view(-1)[rng.randrange(tensor.numel())] = value

    return tensors(change)


def replace_one(new: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(state: dict[str, torch.Tensor], rng: random.Random) -> None:
        name = any_float(state, rng)
        state[name] = new(state[name]).contiguous()

    return tensors(change)


def rename_one(state: dict[str, torch.Tensor], rng: random.Random) -> None:
    name = any_float(state, rng)
    state[name + "\n\x1b[31m" + "x" * 300] = state.pop(name)


def name_twice(state: dict[str, torch.Tensor], rng: random.Random) -> None:
    name = any_float(state, rng)
    state[f"geaau.{name}"] = state[name].clone()


RANDOM: dict[str, tuple[str, Change]] = {
    "a tensor is missing": ("lack", tensors(lambda state, rng: state.pop(rng.choice(sorted(state))))),
    "half of the tensors are missing": (r"lack .* and \d+ more", tensors(drop_half)),
    "a tensor is left over": ("hold what the model has not: extra", tensors(leave_over)),
    "a tensor is renamed": ("lack .*; hold what the model has not", tensors(rename_one)),
    "a tensor has two names": ("name a tensor twice", tensors(name_twice)),
    "NaN": ("hold NaN or infinity", poison(float("nan"))),
    "infinity": ("hold NaN or infinity", poison(float("-inf"))),
    "another shape": ("another shape or type", replace_one(lambda tensor: torch.cat([tensor, tensor]))),
    "another rank": ("another shape or type", replace_one(lambda tensor: tensor[None])),
    "whole numbers": ("another shape or type", replace_one(lambda tensor: tensor.to(torch.int32))),
    "truncated": (
        "Cannot load", lambda folder, rng: spoil(folder, lambda content: content[: rng.randrange(len(content))])
    ),
    "flipped bytes in the header": (
        "Cannot load", lambda folder, rng: spoil(folder, lambda content: flipped(content, rng.randrange(8, 2000)))
    ),
}  # fmt: skip


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x90]) + content[place + 1 :]


def spoil(folder: Path, change: Callable[[bytes], bytes], name: str = "model.safetensors") -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def with_header(folder: Path, header: bytes, data: bytes = b"") -> None:
    spoil(folder, lambda _: len(header).to_bytes(8, "little") + header + data)


def entry(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[bytes, bytes]] = {
    "no JSON": (b"{not json", b""),
    "a list": (b"[1, 2, 3]", b""),
    "deep": (b"[" * 100_000, b""),
    "overlapping offsets": (json.dumps({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}).encode(), bytes(12)),
    "offsets beyond the file": (json.dumps({"a": entry([2**40], 0, 2**42)}).encode(), b""),
    "overflowing shape": (json.dumps({"a": entry([2**62, 2**62], 0, 8)}).encode(), bytes(8)),
    "negative offset": (json.dumps({"a": entry([2], -8, 0)}).encode(), b""),
    "hole": (json.dumps({"a": entry([2], 8, 16)}).encode(), bytes(16)),
    "no tensors": (b"{}", b""),
}
for title, (header, data) in HEADERS.items():
    kind("Cannot load", f"header: {title}")(
        lambda folder, _, header=header, data=data: with_header(folder, header, data)
    )


@kind("truncated, or not safetensors")
def header_of_2_to_60_bytes(folder, _):
    spoil(folder, lambda content: (2**60).to_bytes(8, "little") + content[8:])


@kind("truncated, or not safetensors")
def an_empty_file(folder, _):
    spoil(folder, lambda content: b"")
    spoil(folder, lambda content: b"\xff" * 7)


@kind("Cannot load")
def a_pickle_in_disguise(folder, _):
    torch.save({"x": torch.ones(3)}, folder / "model.safetensors")


@kind("negative variances")
@tensors
def negative_variance(state, _):
    state[next(name for name in state if name.endswith("running_var"))].neg_()


@kind("it has no file model.safetensors")
def a_pipe_for_weights(folder, _):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


@kind("it has no file model.safetensors")
def an_endless_device_for_weights(folder, _):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


@kind("it has no file model.safetensors")
def a_dangling_link_for_weights(folder, _):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("nowhere")


@kind("it has no file model.safetensors")
def a_folder_for_weights(folder, _):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


@kind("it has no file model.safetensors")
def weights_under_another_name(folder, _):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


@kind("holds an adapter")
def an_adapter_beside_the_weights(folder, _):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')


# --- the index of several files ---


def shard(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Move the weights into one shard with an index, and change that."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = list(load_file(folder / "model-00001-of-00001.safetensors"))
    index: Any = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    index = change(index) or index
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def point_to(name: Any) -> Callable[[dict[str, Any]], None]:
    return lambda index: index["weight_map"].update({next(iter(index["weight_map"])): name})


INDEXES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "parent folder": ("no safetensors file beside it", point_to("../model.safetensors")),
    "absolute path": ("no safetensors file beside it", point_to("/etc/passwd.safetensors")),
    "backslashes": ("no safetensors file beside it", point_to("..\\model.safetensors")),
    "a pickle": ("no safetensors file beside it", point_to("pytorch_model.bin")),
    "no name": ("no safetensors file beside it", point_to("")),
    "a missing file": ("it has no file model-2", point_to("model-2.safetensors")),
    "a number": ("has no `weight_map` of names", point_to(7)),
    "an empty map": ("has no `weight_map` of names", lambda index: {"weight_map": {}}),
    "a list": ("holds a list, not an object", lambda index: [index]),
    "another list": ("has no `weight_map` of names", lambda index: {"weight_map": ["model.safetensors"]}),
    "a tensor that is not there": (
        "does not name what", lambda index: index["weight_map"].update(ghost="model-00001-of-00001.safetensors")
    ),
    "a tensor left out": ("does not name what", lambda index: index["weight_map"].popitem() and None),
}  # fmt: skip
for title, (words, changed) in INDEXES.items():
    kind(words, f"index: {title}")(lambda folder, _, changed=changed: shard(folder, changed))


# --- config.json ---


def merge(folder: Path, name: str, values: dict[str, Any]) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


MIRRORED = [[0.66, 0.36], [0.34, 0.36], [0.5, 0.543], [0.633, 0.73], [0.367, 0.73]]
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "no model type": ("names no model type", {"model_type": None}),
    "foreign": ("its model type is 'bert'", {"model_type": "bert"}),
    "a strange model type": ("its model type is", {"model_type": ["geaau"]}),
    "quantized": ("it is quantized", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    "an enormous backbone": ("do not fit its config: they lack", {"backbone": "eva02_enormous_patch14_clip_224"}),
    "another backbone": ("do not fit its config", {"backbone": "test_vit"}),
    "no backbone": ("`backbone` must name a model of timm", {"backbone": "resnet-5000"}),
    "a backbone on the Hub": ("`backbone` must name a model of timm", {"backbone": "hf-hub:evil/model"}),
    "a backbone in a folder": ("`backbone` must name a model of timm", {"backbone": "local-dir:/tmp"}),
    "an endless backbone name": ("`backbone` must name a model of timm", {"backbone": "x" * 100_000}),
    "a nested backbone": ("'backbone'", {"backbone": {"a": 1}}),
    "size 16000": ("`image_size` must be at most 4096, got 16000", {"image_size": 16000}),
    "size 2**70": ("`image_size` must be at most 4096", {"image_size": 2**70}),
    "size 10**400": ("`image_size` must be at most 4096, got a huge number", {"image_size": 10**400}),
    "negative size": ("`image_size` must be at least 1", {"image_size": -64}),
    "size as text": ("'image_size'", {"image_size": "64"}),
    "size as a fraction": ("'image_size'", {"image_size": 64.5}),
    "stage 10**9": ("`backbone_stage` must be at most 31", {"backbone_stage": 10**9}),
    "embedding of 10**9": ("`embedding_dim` must be at most 65536", {"embedding_dim": 10**9}),
    "hidden 10**9": ("`lam_hidden_channels` must be at most 16384", {"lam_hidden_channels": 10**9}),
    "features 10**9": ("`lam_feature_channels` must be at most 1024", {"lam_feature_channels": 10**9}),
    "hidden within bounds": ("do not fit its config", {"lam_hidden_channels": 16384, "lam_feature_channels": 1024}),
    "temperature 1e308": ("`temperature` must be at most 1000", {"temperature": 1e308}),
    "negative temperature": ("`temperature` must be at least 0.001", {"temperature": -1.0}),
    "temperature as text": ("'temperature'", {"temperature": "1"}),
    "temperature as JSON of transformers": ("'temperature'", {"temperature": {"__float__": "NaN"}}),
    "dropout 1e308": (r"`classifier_dropout` must lie in \[0, 1\)", {"classifier_dropout": 1e308}),
    "duplicate AUs": ("`action_units` must be distinct", {"action_units": [12, 12, 25]}),
    "a huge AU": ("`action_units` must be distinct", {"action_units": [1, 12, 10**30]}),
    "a negative AU": ("`action_units` must be distinct", {"action_units": [1, 12, -25]}),
    "100,000 AUs": ("`action_units` must be distinct", {"action_units": list(range(1, 100_001))}),
    "AUs as text": ("'action_units'", {"action_units": "AU12"}),
    "AUs of texts": ("'action_units'", {"action_units": ["1", "12", "25"]}),
    "other AUs": ("`id2label` follows from", {"action_units": [1, 2, 4]}),
    "more AUs": ("do not fit its config", {"action_units": [1, 2, 4, 6], "id2label": None, "thresholds": None}),
    "thresholds too many": ("one value per action unit", {"thresholds": [0.5] * 4}),
    "thresholds above 1": ("`thresholds` must be probabilities", {"thresholds": [0.5, 0.5, 1e308]}),
    "thresholds as text": ("'thresholds'", {"thresholds": ["0.5"] * 3}),
    "weights of AUs negative": ("`au_weights` must be at least 0", {"au_weights": [1.0, 1.0, -1.0]}),
    "mask regions outside": ("`mask_regions` must hold", {"mask_regions": [[[0.0, 0.0, 9.0, 1.0]]] * 3}),
    "margins 1e308": ("`triplet_margins` must be at most", {"triplet_margins": [1e308, 0.1, 0.1]}),
    "template on one spot": ("`crop_template` must place", {"crop_template": [[0.5, 0.5]] * 5}),
    "mirrored template": ("`crop_template` must place", {"crop_template": MIRRORED}),
    "template far away": ("`crop_template` must place", {"crop_template": [[x * 1e6, y * 1e6] for y, x in MIRRORED]}),
    "template of 4 points": ("`crop_template` must hold 5 points", {"crop_template": MIRRORED[:4]}),
    "data sets": ("`trained_on` must hold up to 64 names", {"trained_on": ["x" * 1000]}),
    "type int8": ("`dtype` must be one of", {"dtype": "int8"}),
    "type that is a function": ("'dtype'|`dtype`", {"dtype": "load"}),
    "a misspelled key": ("Did you mean 'thresholds'", {"thresholdss": [0.1] * 3}),
    "600 keys": ("at most 500 entries", {f"key{number}": number for number in range(600)}),
}
for title, (words, values) in CONFIGS.items():
    kind(words, f"config: {title}")(lambda folder, _, values=values: merge(folder, "config.json", values))

BACKBONE_KWARGS: dict[str, tuple[str, Any]] = {
    "checkpoint_path": ("cannot hold 'checkpoint_path'", "/etc/passwd"),
    "pretrained": ("cannot hold 'pretrained'", True),
    "pretrained_cfg": ("cannot hold 'pretrained_cfg'", {"file": "/etc/passwd"}),
    "pretrained_cfg_overlay": ("cannot hold 'pretrained_cfg_overlay'", {"url": "http://evil"}),
    "features_only": ("cannot hold 'features_only'", False),
    "cache_dir": ("cannot hold 'cache_dir'", "/tmp/evil"),
    "drop_pathrate": ("Did you mean 'drop_path_rate'", 0.1),
    "x" * 5000: ("cannot hold", 1),
    "drop_path_rate": ("`backbone_kwargs.drop_path_rate` must be at most 0.99", 1e308),
    "drop_rate": ("`backbone_kwargs.drop_rate` must be a number", "0.1"),
    "depths": ("must be a number, or a list of up to 8 numbers", [1] * 1000),
    "embed_dim": ("must be at most 8192", 10**12),
    "num_heads": ("must be at least 1", [0, 0]),
    "img_size": ("must be at most 4096", 16000),
    "dynamic_img_size": ("must be true or false", "yes"),
    "norm_layer": ("must be a name", {"a": 1}),
    "window_size": ("must be a number", [[7, 7]]),
    "qkv_bias": ("Cannot load the checkpoint .* timm cannot build", True),
}
for title, (words, value) in BACKBONE_KWARGS.items():
    kind(words, f"backbone_kwargs: {title[:40]}")(
        lambda folder, _, values={"backbone_kwargs": {title: value}}: merge(folder, "config.json", values)
    )

TEXTS: dict[str, tuple[str, bytes]] = {
    "a list": ("holds a list, not an object", b"[]"),
    "a number": ("holds a float, not an object", b"1e9999"),
    "empty": ("as JSON", b""),
    "deep": ("as JSON", b'{"a":' * 100_000),
    "deep list": ("as JSON", b"[" * 500_000),
    "not UTF-8": ("as JSON", b'{"model_type": "\xff"}'),
    "NaN": ("it holds NaN", b'{"model_type": "geaau", "temperature": NaN}'),
    "Infinity": ("it holds -Infinity", b'{"model_type": "geaau", "temperature": -Infinity}'),
    "a key twice": ("the same key twice", b'{"model_type": "geaau", "temperature": 1.0, "temperature": 2.0}'),
    "a huge number": ("as JSON", b'{"model_type": "geaau", "image_size": 1' + b"0" * 10_000 + b"}"),
    "huge": ("more than 1,048,576 bytes", b" " * (2 << 20)),
}
for file in ("config.json", "preprocessor_config.json"):
    for title, (words, content) in TEXTS.items():
        kind(words, f"{file}: {title}")(
            lambda folder, _, content=content, file=file: (folder / file).write_bytes(content)
        )


@kind("its config.json is no file")
def a_pipe_for_the_config(folder, _):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


@kind("it has no config.json")
def no_config(folder, _):
    (folder / "config.json").unlink()


@kind("asks for tables of more than")
def tables_that_no_file_holds(folder, _):
    """A window attention whose masks would take gigabytes, with weights of a few kilobytes that fit it."""
    swin = {"embed_dim": 4, "depths": [2, 2, 2, 2], "num_heads": [1] * 4, "window_size": 32}
    settings = {"backbone": "swin_tiny_patch4_window7_224", "backbone_kwargs": swin, "image_size": 2048}
    merge(folder, "config.json", settings)
    with torch.device("meta"):
        network = GeaauModel(GeaauModel.config_class.from_pretrained(folder))
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")


# --- preprocessor_config.json ---

PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "foreign": ("of another model", {"image_processor_type": "ViTImageProcessor"}),
    "no name": ("of another model", {"image_processor_type": 5}),
    "size 16000": ("`size` must lie from 1 to 4096 pixels", {"size": {"height": 16000, "width": 64}}),
    "size 0": ("`size` must lie from 1 to 4096 pixels", {"size": {"height": 0, "width": 64}}),
    "size as text": ("Cannot load the checkpoint", {"size": {"height": "64", "width": 64}}),
    "size by its longest edge": ("`size` must have a height and a width", {"size": {"longest_edge": 64}}),
    "size as a list of lists": ("Cannot load the checkpoint", {"size": [[64], [64]]}),
    "padding": ("`pad_size` must lie from 1", {"pad_size": {"height": 10**6, "width": 10**6}, "do_pad": True}),
    "deviation 0": ("`image_std` must be", {"image_std": [0.0, 0.5, 0.5]}),
    "deviation of 2 channels": ("`image_std` must be", {"image_std": [0.5, 0.5]}),
    "deviation as text": ("`image_std` must be", {"image_std": ["0.5"] * 3}),
    "mean 1e308": ("`image_mean` must be", {"image_mean": [1e308] * 3}),
    "scale 0": ("`rescale_factor` must be", {"rescale_factor": 0}),
    "negative scale": ("`rescale_factor` must be", {"rescale_factor": -1.0}),
    "template of 4 points": ("`crop_template` must hold 5 points", {"crop_template": MIRRORED[:4]}),
    "template of texts": ("Cannot load the checkpoint", {"crop_template": [["a", "b"]] * 5}),
    "template as a number": ("`crop_template` must hold 5 points", {"crop_template": 7}),
    "mirrored template": ("`crop_template` must place", {"crop_template": MIRRORED}),
    "switch as text": ("`do_normalize` must be true or false", {"do_normalize": "no"}),
    "unknown filter": ("`resample` must be", {"resample": 77}),
    "a method": ("has no setting 'preprocess'", {"preprocess": "x"}),
    "a class": ("has no setting '__class__'", {"__class__": "x"}),
    "a device": ("which the caller decides", {"device": "cuda:7"}),
}
for title, (words, values) in PROCESSORS.items():
    kind(words, f"processor: {title}")(
        lambda folder, _, values=values: merge(folder, "preprocessor_config.json", values)
    )


@kind("it has no preprocessor_config.json")
def no_processor(folder, _):
    (folder / "preprocessor_config.json").unlink()


@kind("is no file")
def a_pipe_for_the_processor(folder, _):
    (folder / "preprocessor_config.json").unlink()
    os.mkfifo(folder / "preprocessor_config.json")


@kind("of another model")
def a_foreign_processor_in_the_newer_file(folder, _):
    content = {"image_processor": {"image_processor_type": "CLIPImageProcessor"}}
    (folder / "processor_config.json").write_text(json.dumps(content))


CASES = [(name, 0) for name in KINDS] + [(name, seed) for name in RANDOM for seed in range(SEEDS)]


def test_there_are_many_of_them():
    assert len(CASES) >= 100


@pytest.mark.parametrize(("name", "seed"), CASES, ids=lambda value: str(value))
def test_a_bad_checkpoint_is_refused_in_one_line(name, seed, tiny_checkpoint):
    words, change = {**KINDS, **RANDOM}[name]
    change(tiny_checkpoint, random.Random(seed))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(tiny_checkpoint)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600, text
    assert tiny_checkpoint.name in text


def test_paths_in_messages_are_one_line_without_secrets(tiny_checkpoint):
    odd = tiny_checkpoint.with_name("a\nb" + "c" * 200)
    tiny_checkpoint.rename(odd)
    (odd / "config.json").write_text("[]")
    for name in (odd, "https://ada:secret@example.org/model?token=secret", "/no/such/place\n" + "x/" * 2000):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_the_worst_take_little_memory_and_time(tiny_checkpoint, tmp_path):
    """Loaded in one process of their own, whose memory must stay near that of loading the good one."""
    names = ("header: offsets beyond the file", "header: overflowing shape", "header_of_2_to_60_bytes", "header: deep")
    names += ("config: an enormous backbone", "config: hidden within bounds", "tables_that_no_file_holds")
    names += ("config: 100,000 AUs", "config: an endless backbone name", "config.json: deep list")
    folders = []
    for name in names:
        folder = tmp_path / f"bad{len(folders)}"
        folder.mkdir()
        for path in tiny_checkpoint.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        KINDS[name][1](folder, random.Random(0))
        folders.append(str(folder))
    code = f"""
import resource, time
from hf_geaau.models.loading import load_checkpoint
load_checkpoint({str(tiny_checkpoint)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in {folders}:
    start = time.process_time()
    try:
        load_checkpoint(folder)
        raise SystemExit(folder + " was loaded")
    except ValueError:
        pass
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert used < 200, (folder, used)
    assert time.process_time() - start < 20, (folder, time.process_time() - start)
print("MB", round(used), "seconds", round(time.process_time() - start, 1))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# --- whole checkpoints ---

CROP = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)


def assert_as_transformers_loads_it(folder: Path, crop: torch.Tensor = CROP) -> Any:
    ours, processor = load_checkpoint(folder)
    theirs = type(ours).from_pretrained(folder).eval()
    assert isinstance(processor, GeaauImageProcessor)
    assert type(ours) in (GeaauModel, GeaauForExpressionEmbedding) and not ours.training
    assert ours.dtype == theirs.dtype and ours.name_or_path == str(folder)
    ours_state, state = ours.state_dict(), theirs.state_dict()
    assert ours_state.keys() == state.keys()
    assert all(torch.equal(ours_state[name], state[name]) for name in state)
    with torch.inference_mode():
        one, other = ours(crop.to(ours.dtype)), theirs(crop.to(ours.dtype))
    assert torch.equal(one.expression_embedding, other.expression_embedding)
    if isinstance(ours, GeaauModel):
        assert torch.equal(one.logits, other.logits)
    return ours


def test_the_bundled_one_loads():
    assert_as_transformers_loads_it(BUNDLED_CHECKPOINT, torch.zeros(1, 3, 128, 128))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shards", [False, True])
def test_saved_ones_load(dtype, shards, tiny_model, tiny_checkpoint):
    options = {"max_shard_size": "40KB"} if shards else {}
    (tiny_checkpoint / "model.safetensors").unlink()
    tiny_model.to(dtype).save_pretrained(tiny_checkpoint, **options)
    assert (tiny_checkpoint / "model.safetensors").exists() is not shards
    assert assert_as_transformers_loads_it(tiny_checkpoint).dtype == dtype


def test_an_encoder_loads(tiny_config, tiny_checkpoint):
    GeaauForExpressionEmbedding(tiny_config).save_pretrained(tiny_checkpoint)
    assert_as_transformers_loads_it(tiny_checkpoint)


@pytest.mark.parametrize(
    "settings", [{"head": "pooled"}, {"predict_intensity": True}, {"lam_normalization": "group"}], ids=str
)
def test_other_heads_load(settings, tiny_config, tiny_checkpoint):
    GeaauModel(type(tiny_config)(**{**tiny_config.to_diff_dict(), **settings})).save_pretrained(tiny_checkpoint)
    assert_as_transformers_loads_it(tiny_checkpoint)


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_efficientnet", "eva02_tiny_patch14_224"])
def test_other_backbones_load(backbone, tiny_config, tiny_checkpoint):
    tiny_config.backbone = backbone
    tiny_config.backbone_kwargs = {"depth": 2, "patch_size": 16} if backbone.startswith("eva02") else None
    GeaauModel(tiny_config).save_pretrained(tiny_checkpoint)
    assert_as_transformers_loads_it(tiny_checkpoint)


def test_one_with_its_code_loads_and_the_code_does_not_run(tiny_checkpoint):
    export_remote_code(tiny_checkpoint)
    marker = tiny_checkpoint / "ran"
    for path in tiny_checkpoint.glob("*_geaau.py"):
        path.write_text(f"open({str(marker)!r}, 'w').close()\n" + path.read_text())
    assert_as_transformers_loads_it(tiny_checkpoint)
    assert not marker.exists()


def test_a_snapshot_of_links_loads(tiny_checkpoint, tmp_path):
    """As in the cache of the Hub's client."""
    snapshot = tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in tiny_checkpoint.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    assert_as_transformers_loads_it(snapshot)


def test_old_names_load(tiny_model, tiny_checkpoint):
    state = {f"geaau.{name}": tensor for name, tensor in load_file(tiny_checkpoint / "model.safetensors").items()}
    save_file(state, tiny_checkpoint / "model.safetensors", metadata={"format": "pt"})
    network = assert_as_transformers_loads_it(tiny_checkpoint)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in tiny_model.state_dict().items())


def test_entries_that_would_change_how_it_runs_are_ignored(tiny_checkpoint):
    expected = load_checkpoint(tiny_checkpoint)[0](CROP).logits
    values = {"_attn_implementation": "evil/kernel", "attn_implementation": "evil/kernel", "__validators__": {}}
    merge(tiny_checkpoint, "config.json", {**values, "_check": 1, "zz_unknown\x1b[31m": 2})
    network = load_checkpoint(tiny_checkpoint)[0]
    assert torch.equal(network(CROP).logits, expected)
    assert network.config._attn_implementation != "evil/kernel"
    with pytest.raises(ValueError, match="cannot hold 'checkpoint_path'"):  # through transformers itself, too
        merge(tiny_checkpoint, "config.json", {"backbone_kwargs": {"checkpoint_path": "x"}})
        AutoModel.from_pretrained(tiny_checkpoint)


def test_training_does_not_start_from_half_of_a_checkpoint(tiny_checkpoint):
    from hf_geaau.training import build_model

    tensors(drop_half)(tiny_checkpoint, random.Random(0))
    model = {"backbone": "test_resnet", "backbone_kwargs": None, "image_size": 64, "backbone_stage": -1}
    for key in ("start_from", "expression_encoder"):
        recipe = load_recipe("synthetic", {"model": model, "expression_encoder": None, key: str(tiny_checkpoint)})
        with pytest.raises(CheckpointError, match="do not fit its config: they lack"):
            build_model(recipe)


# --- recipes ---


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "", "a: [", "&a [*a]", "!!python/object/apply:os.system ['true']", "stage: " + "[" * 5000, "x: \x00",
     "stage: action_units\ndataset: synthetic\nmodel: {image_size: 16000}\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nmodel: {backbone_kwargs: {checkpoint_path: /etc/passwd}}\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nmodel: {temperature: .nan}\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nmodel: 7\nepochs: 1",
     "stage: action_units\ndataset: ../../etc\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nlearning_rate: .inf\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nseed: 1e400\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nbatch_size: 99999999999999999999\nepochs: 1",
     "stage: action_units\ndataset: synthetic\nepochs: 1\n" + "\n".join(f"key{i}: 1" for i in range(5000)),
     "stage: action_units\ndataset: synthetic\nprotocol: " + "x" * 100_000 + "\nepochs: 1", "\udce9: 1",
     "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 12)),
     "stage: action_units\ndataset: synthetic\nepochs: 1\na0: &a0 [x]\n"
     + "\n".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 12)) + "\noptions: {x: *a11}",
     "stage: action_units\ndataset: synthetic\nepochs: 1\nmodel:\n  a0: &a0 [x]\n"
     + "\n".join(f"  a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 12)) + "\n  temperature: *a11",
     "? [a, b]\n: 1", "1: 2", "stage: {a: b}",
     "model: {action_units: [1, 1]}\nstage: action_units\ndataset: synthetic"],
)  # fmt: skip
def test_a_bad_recipe_is_one_line(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
