"""Fixtures for all tests. Nothing here touches the network or the user's caches."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "200"  # tables whole, whatever the terminal; rich reads it when the command is imported

import copy
from pathlib import Path

import pytest
import torch

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel

FACE_MODEL = Path(__file__).parents[2] / "shared" / "face_model" / "ict_facekit.npz"


def pytest_configure(config: pytest.Config) -> None:
    for name in ("accelerate_tests", "torch_compile_test", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"):
        config.addinivalue_line("markers", f"{name}: of transformers' own tests; see transformers_suite.py")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tiny_config() -> GeaauConfig:
    return GeaauConfig(
        backbone="test_resnet", image_size=64, action_units=[1, 12, 25], lam_hidden_channels=12, lam_feature_channels=4
    )


@pytest.fixture(scope="session")
def _tiny_model() -> GeaauModel:
    torch.manual_seed(0)
    config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1, 12, 25], lam_hidden_channels=12)
    return GeaauModel(config).eval()


@pytest.fixture
def tiny_model(_tiny_model: GeaauModel) -> GeaauModel:
    return copy.deepcopy(_tiny_model)


@pytest.fixture
def tiny_checkpoint(tiny_model: GeaauModel, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    tiny_model.save_pretrained(folder)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def face_model_path() -> Path:
    if not FACE_MODEL.exists():
        pytest.skip("needs the ICT-FaceKit mesh in ../shared/face_model, which a plain clone does not have")
    return FACE_MODEL


@pytest.fixture(scope="session")
def portrait():
    """NASA's portrait of Eileen Collins (public domain), RGB 512×512, and its five points in pixels."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, which carries the photo")
    points = [[200.1, 101.8], [247.1, 102.6], [220.4, 124.5], [198.6, 142.8], [239.7, 143.6]]
    return data.astronaut(), points
