"""Every example runs offline, as a user would start it, and is short."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHOWN = {
    "01_photo": "AU12  Lip corner puller",
    "02_video": "AU12",
    "03_prepare_and_train": "mean F1 of fold 1",
    "04_finetune_with_trainer": "eval_f1",
    "05_evaluate_and_calibrate": "F1 after",
    "06_share_on_the_hub": "apache-2.0",
    "07_datasets_map": "AU12 0.",
    "08_spark": "|number|face|",
}
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def test_the_examples_are_short_and_each_is_tested():
    assert [path.stem for path in EXAMPLES] == list(SHOWN)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path):
    for package in ("skimage", "av", "accelerate", "matplotlib"):
        pytest.importorskip(package, reason=f"the examples need {package}")
    if path.stem == "08_spark":
        pytest.importorskip("pyspark", reason="needs `pip install pyspark`")
        if shutil.which("java") is None:
            pytest.skip("needs Java, such as Debian's default-jre-headless")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert SHOWN[path.stem] in done.stdout


@pytest.mark.slow
def test_the_slurm_script_runs_where_srun_runs_commands_here(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho 127.0.0.1\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "RAY_PORT": port,
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    script = ["bash", ROOT / "examples" / "slurm" / "predict.sbatch"]
    for _ in range(2):  # submitted again, it finds that all is done
        done = subprocess.run(
            [*script, ROOT / "examples" / "faces.parquet", "aus.parquet"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert " rows of " in done.stdout
    assert len(pd.read_parquet(tmp_path / "aus.parquet")) > 10
