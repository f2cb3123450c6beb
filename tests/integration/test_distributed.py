"""Two real processes over gloo train as one does at the same global batch, by torchrun and by accelerate launch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_geaau.data import write_example

CPU_GLOO = Path(__file__).parents[2] / "examples" / "accelerate" / "cpu_gloo.yaml"
STEPS = 20
# Without batch norm, whose statistics are of each process by itself; see examples/accelerate/README.md.
SETTINGS = [
    "model.backbone=test_vit",
    "model.backbone_kwargs=null",
    "model.backbone_stage=-1",
    "model.image_size=32",
    "batch_size=8",
    "precision=fp32",
    f"max_steps={STEPS}",
    "epochs=null",
    "validation_share=0",
    "early_stopping=null",
]
STAGE1 = ["options.triplets=24"]
STAGE2 = [
    "model.lam_normalization=group",
    "model.lam_hidden_channels=36",
    "model.lam_feature_channels=2",
    "model.classifier_dropout=0",
]

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from hf_geaau.training import build_trainer, datasets_of, ending_process_group, load_recipe, open_split, training_config

data, output, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def losses_of(name, settings):
    recipe = load_recipe(name, settings)
    split = open_split(recipe, data, None)
    rows, _ = datasets_of(recipe, split, training_config(recipe, split))
    trainer = build_trainer(recipe, rows, output=f"{output}-{name}-work", use_cpu=True)
    trainer.args.logging_steps = trainer.state.logging_steps = 1
    trainer.args.save_strategy = "no"
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, trainer.args.world_size, trainer.is_world_process_zero()

with ending_process_group():
    results = {name: losses_of(name, settings) for name, settings in jobs}
losses = {name: result[0] for name, result in results.items()}
_, processes, is_first = results[jobs[0][0]]
if is_first:
    json.dump({"losses": losses, "processes": processes}, open(output, "w"))
assert not torch.distributed.is_initialized()
if sys.platform == "linux":  # a thread of gloo that outlives the group could abort the process at its exit
    threads = [open(f"/proc/self/task/{thread}/comm").read() for thread in os.listdir("/proc/self/task")]
    assert not any("gloo" in thread for thread in threads), threads
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Losses by launcher, stage and step."""
    folder = tmp_path_factory.mktemp("distributed")
    data = write_example("synthetic", folder / "faces", identities=12, frames=4, size=32)
    script = folder / "train.py"
    script.write_text(SCRIPT)
    jobs = json.dumps([["synthetic_gee", SETTINGS + STAGE1], ["synthetic", SETTINGS + STAGE2]])
    run = [sys.executable, "-m"]
    launchers = {
        "one process": [sys.executable],
        "torchrun": [*run, "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"],
        "accelerate launch": [
            *run,
            "accelerate.commands.launch",
            f"--config_file={CPU_GLOO}",
            f"--main_process_port={free_port()}",
        ],
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = {}
    for name, launcher in launchers.items():
        output = folder / f"{name}.json"
        command = [*launcher, str(script), str(data), str(output), jobs]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        result[name] = json.loads(Path(output).read_text())
    return result


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
@pytest.mark.parametrize("stage", ["synthetic_gee", "synthetic"])
def test_two_processes_give_the_loss_of_one(losses, launcher, stage):
    assert losses[launcher]["processes"] == 2
    assert losses["one process"]["processes"] == 1
    expected, found = losses["one process"]["losses"][stage], losses[launcher]["losses"][stage]
    assert len(expected) == STEPS
    assert len(set(expected)) > 10  # it does learn something
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["cpu_gloo", "multi_gpu", "fsdp", "deepspeed_zero2"])
def test_accelerate_reads_the_examples(name):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(CPU_GLOO.with_name(f"{name}.yaml")))
    assert found.num_processes == (2 if name == "cpu_gloo" else 4)
