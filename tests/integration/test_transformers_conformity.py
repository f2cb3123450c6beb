"""The common tests of transformers, run on our models and image processors.

What is skipped or expected to fail, with its reason, also stands in docs/how_it_works.md.
"""

import unittest
from unittest import mock

import pytest
import torch
from torch import nn
from transformers_suite import suite_module

from hf_geaau import (
    GeaauConfig,
    GeaauForExpressionEmbedding,
    GeaauImageProcessor,
    GeaauImageProcessorPil,
    GeaauModel,
)

pytest.importorskip("parameterized", reason="transformers' tests need it")
try:
    modeling, configuration, processing = map(
        suite_module, ("test_modeling_common", "test_configuration_common", "test_image_processing_common")
    )
except OSError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="transformers' tests need torch.distributed"),
]

SETTINGS = {"image_size": 64, "action_units": [1, 2, 4, 12, 25], "lam_hidden_channels": 15, "lam_feature_channels": 4}


def not_ours(reason: str):
    """Expect a common test to fail, for a reason of the documented table."""
    return pytest.mark.xfail(strict=True, reason=reason)


class GeaauConfigTester(configuration.ConfigTester):
    def create_and_test_config_with_num_labels(self):
        config = self.config_class(**self.inputs_dict, num_labels=5)
        self.parent.assertEqual(len(config.id2label), 5)
        with self.parent.assertRaises(ValueError):  # transformers makes up names: LABEL_0, LABEL_1, LABEL_2
            config.num_labels = 3


class GeaauModelTester:
    batch_size, is_training = 2, True

    def __init__(self, backbone: str, num_hidden_layers: int, hidden_size: int):
        self.backbone, self.expected_num_hidden_layers = backbone, num_hidden_layers
        self.num_hidden_layers, self.seq_length, self.hidden_size = 2, hidden_size, hidden_size

    def prepare_config_and_inputs_for_common(self):
        images = modeling.floats_tensor([self.batch_size, 3, 64, 64])
        return GeaauConfig(backbone=self.backbone, **SETTINGS), {"pixel_values": images}


class CommonTests(modeling.ModelTesterMixin):
    """What holds for every backbone. The attributes below are those of transformers' own vision models."""

    all_model_classes = (GeaauModel, GeaauForExpressionEmbedding)
    has_attentions = False
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = GeaauModelTester(*self.backbone)
        self.config_tester = GeaauConfigTester(
            self, GeaauConfig, has_text_modality=False, common_properties=[], backbone=self.backbone[0], **SETTINGS
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if return_labels and model_class is GeaauModel:
            inputs["labels"] = torch.zeros(2, 5)
        elif return_labels:  # the loss of GEE is that of triplets
            inputs["pixel_values"] = torch.stack([inputs["pixel_values"]] * 3, dim=1)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    @not_ours("labels are names of action units, which a number does not give")
    def test_can_load_ignoring_mismatched_shapes(self):
        super().test_can_load_ignoring_mismatched_shapes()

    @not_ours("a vision model has no token embeddings")
    def test_model_get_set_embeddings(self):
        super().test_model_get_set_embeddings()

    @not_ours("timm initializes the weights of its backbones, not transformers")
    def test_can_init_all_missing_weights(self):
        super().test_can_init_all_missing_weights()


class VisionTransformerTest(CommonTests, unittest.TestCase):
    backbone = ("test_vit", 6, 4)

    def setUp(self):
        super().setUp()
        # Whether a model supports it depends on its backbone, so the class says no, as that of timm_wrapper.
        for model_class in self.all_model_classes:
            patch = mock.patch.object(model_class, "supports_gradient_checkpointing", True)
            self.enterContext(patch)

    def test_gradient_checkpointing_enable_disable(self):
        with mock.patch.object(modeling, "GradientCheckpointingLayer", nn.Module):  # timm checkpoints its own blocks
            super().test_gradient_checkpointing_enable_disable()

    def check_training_gradient_checkpointing(self, gradient_checkpointing_kwargs=None):
        """Compare gradients; transformers counts calls of its own layer, and timm checkpoints by its own means."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs, runs, gradients = self._prepare_for_class(inputs, model_class, return_labels=True), [], []
            model = model_class(config).train()
            model.gee.backbone.model.blocks[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
            for enable in (model.activation_checkpointing_disable, model.activation_checkpointing_enable):
                enable()
                model.zero_grad()
                model(**inputs).loss.backward()
                gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
            torch.testing.assert_close(*gradients)
            self.assertEqual(len(runs), 3)  # forward; forward and once more backward

    @not_ours("the feature maps that timm gives of a transformer are reshaped copies, not what the next block reads")
    def test_retain_grad_hidden_states_attentions(self):
        super().test_retain_grad_hidden_states_attentions()


class ConvolutionalTest(CommonTests, unittest.TestCase):
    backbone = ("test_resnet", 5, 32)


class GeaauImageProcessingTester(processing.ImageProcessingTester):
    def __init__(self, parent):
        super().__init__(parent, size={"height": 18, "width": 18}, image_mean=[0.5] * 3, image_std=[0.5] * 3)

    def _get_image_processing_classes(self):
        return {"torchvision": GeaauImageProcessor, "pil": GeaauImageProcessorPil}


class ImageProcessingTest(processing.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = GeaauImageProcessingTester
