import copy
import inspect
import itertools
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification, PreTrainedModel

from hf_geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauImageProcessor, GeaauModel
from hf_geaau.data.synthetic import MIN_GAP
from hf_geaau.models.geaau.losses_geaau import (
    EXPRESSION_GAP,
    batch_triplet_loss,
    dice_loss,
    intensity_loss,
    mask_share,
    occurrence_loss,
    triplet_loss,
)
from hf_geaau.models.loading import load_checkpoint

# One tiny variant of each family: CNN, hierarchical and plain transformers.
SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}
FAMILIES = {
    "test_resnet": None,
    "mobilenetv4_conv_small_035": None,
    "test_convnext": None,
    "swin_tiny_patch4_window7_224": SWIN,
    "test_vit": None,
    "efficientvit_m0": None,
    "efficientvit_b0": None,
    "test_efficientnet": None,
    "eva02_tiny_patch14_224": {"depth": 2, "patch_size": 16},
}


SMALL = {"backbone": "test_resnet", "image_size": 64, "lam_hidden_channels": 12, "lam_feature_channels": 4}


def build(backbone: str, stage: int = -1) -> GeaauModel:
    config = GeaauConfig(
        backbone=backbone,
        backbone_kwargs=FAMILIES[backbone],
        backbone_stage=stage,
        image_size=64,
        action_units=[1, 12, 25],
        lam_hidden_channels=12,
    )
    return GeaauModel(config).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("stage", [-1, -2])
def test_every_family_keeps_the_contract(backbone, stage, tmp_path):
    model = build(backbone, stage)
    output = model(images(), labels=torch.tensor([[1.0, 0, -1], [0, 1, 1]]))
    height, width = output.expression_map.shape[-2:]
    assert output.logits.shape == (2, 3)
    assert output.au_masks.shape == (2, 3, height, width)
    assert output.au_features.shape == (2, 3, 16)
    assert output.expression_map.shape == (2, model.gee.num_channels, height, width)
    torch.testing.assert_close(output.expression_embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(output.au_masks.sum((2, 3)), torch.ones(2, 3))
    output.loss.backward()
    assert all(
        parameter.grad is not None
        for name, parameter in model.named_parameters()
        if ".projection" not in name and "gee.norm" not in name
    )

    model.save_pretrained(tmp_path)
    again = GeaauModel.from_pretrained(tmp_path)
    assert_same_tensors(model, again)
    with torch.no_grad():
        torch.testing.assert_close(again(images()).logits, model(images()).logits, rtol=1e-5, atol=1e-5)


def assert_same_tensors(model: nn.Module, again: nn.Module) -> None:
    for kind in ("named_parameters", "named_buffers"):  # non-persistent buffers too
        ours, theirs = dict(getattr(model, kind)()), dict(getattr(again, kind)())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_timm_initialises_the_backbone():
    torch.manual_seed(3)
    plain = timm.create_model("test_vit", features_only=True, feature_cls="getter", out_indices=(-1,), img_size=64)
    torch.manual_seed(3)
    model = build("test_vit")
    for ours, theirs in zip(model.gee.backbone.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_earlier_stage_drops_the_layers_behind_it():
    full, early = build("test_resnet", -1), build("test_resnet", -2)
    assert full.gee.backbone.feature_info.reduction() == [32]
    assert early.gee.backbone.feature_info.reduction() == [16]
    assert sum(p.numel() for p in early.gee.parameters()) < sum(p.numel() for p in full.gee.parameters())


@pytest.mark.slow
def test_a_fresh_process_loads_the_same_weights_and_logits(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        torch.save({"state": tiny_model.state_dict(), "logits": tiny_model(images()).logits}, tmp_path / "expected.pt")
    code = f"""
import torch, hf_geaau
from transformers import AutoModel, AutoModelForImageClassification
torch.set_num_threads(1)
expected = torch.load({str(tmp_path / "expected.pt")!r})
x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
for auto in (AutoModel, AutoModelForImageClassification):
    model = auto.from_pretrained({str(tmp_path / "model")!r})
    assert type(model).__name__ == "GeaauModel" and not model.training
    state = model.state_dict()
    assert state.keys() == expected["state"].keys()
    assert all(torch.equal(state[name], expected["state"][name]) for name in state)
    torch.testing.assert_close(model(x).logits, expected["logits"], rtol=1e-5, atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_au_list_redraws_the_au_shaped_tensors_only(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint, \[1, 12, 25\], got \[1, 2, 4, 6\].*with_action_units"):
        GeaauModel.from_pretrained(tmp_path, action_units=[1, 2, 4, 6])
    for config in ({"action_units": [1, 2, 4]}, {"config": GeaauConfig(**SMALL, action_units=[1, 2, 4])}):
        with pytest.raises(ValueError, match="those of the checkpoint"):  # the tensors would fit, the AUs do not
            GeaauModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **config)
    model = GeaauModel.from_pretrained(tmp_path, action_units=[1, 2, 4, 6], ignore_mismatched_sizes=True)
    assert model(images()).logits.shape == (2, 4)
    assert list(model.config.label2id) == ["AU01", "AU02", "AU04", "AU06"]
    for name, tensor in tiny_model.gee.state_dict().items():
        assert torch.equal(tensor, model.gee.state_dict()[name])
    assert torch.isfinite(model(images()).logits).all()


REGIONS = {"mask_regions": [[[0.0, 0.0, 0.5, 0.5]]] * 3, "mask_region_weight": 0.1}


@pytest.mark.parametrize(
    "settings", [{}, {"head": "pooled"}, {"predict_intensity": True, "lam_hidden_channels": 7}, REGIONS]
)
def test_another_au_list_keeps_what_both_have(settings):
    lists = {"action_units": [1, 12, 25], "thresholds": [0.1, 0.2, 0.3], "pos_weight": [2.0] * 3}
    config = GeaauConfig(**{**SMALL, **lists, **settings})
    model = GeaauModel(config).eval()
    other = model.with_action_units([25, 6, 1, 2])
    assert not other.training
    assert other.config.thresholds == [0.3, 0.5, 0.1, 0.5]
    assert other.config.pos_weight == [2.0, 1.0, 2.0, 1.0]
    assert list(other.config.label2id) == ["AU25", "AU06", "AU01", "AU02"]
    assert model.config.action_units == [1, 12, 25]
    one, two = model(images()), other(images())
    torch.testing.assert_close(two.logits[:, [2, 0]], one.logits[:, [0, 2]])
    if one.intensities is not None:
        torch.testing.assert_close(two.intensities[:, [2, 0]], one.intensities[:, [0, 2]])


def test_bfloat16_and_channels_last(tiny_model, tmp_path):
    with torch.no_grad():
        expected = tiny_model(images()).logits
        half = copy.deepcopy(tiny_model).to(torch.bfloat16).to(memory_format=torch.channels_last)
        assert half(images()).logits.dtype == torch.bfloat16  # float32 pixels are cast
        torch.testing.assert_close(half(images()).logits.float(), expected, rtol=0.1, atol=0.1)
    half.save_pretrained(tmp_path)
    assert GeaauModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert GeaauModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_compile_takes_the_whole_graph(backbone):
    model = build(backbone)
    labels = torch.tensor([[1.0, 0, -1], [0, 1, 1]])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected, output = model(images(), labels=labels), compiled(images(), labels=labels)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.loss, expected.loss)


def test_export_with_a_dynamic_batch(tiny_model):
    shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    with torch.no_grad():
        program = torch.export.export(tiny_model, (), {"pixel_values": images(2)}, dynamic_shapes=shapes)
        for count in (1, 5):
            expected = tiny_model(images(count)).logits
            torch.testing.assert_close(program.module()(pixel_values=images(count)).logits, expected)


def test_the_order_of_outputs_is_the_order_of_the_config(tiny_model):
    assert [tiny_model.config.id2label[index] for index in range(3)] == ["AU01", "AU12", "AU25"]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_masks_lie_between_zero_and_one_and_weigh_the_features(activation):
    config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1, 2], mask_activation=activation)
    model = GeaauModel(config).eval()
    output = model(images())
    assert output.au_masks.min() >= 0
    assert output.au_masks.max() <= 1
    maps = model.lam.feature_extractor(output.expression_map).unflatten(1, (2, 16))
    product = maps * output.au_masks.unsqueeze(2)
    pooled = product.sum((3, 4)) / output.au_masks.sum((2, 3)).unsqueeze(2)  # softmax masks sum to 1
    torch.testing.assert_close(output.au_features, pooled)


def test_each_classifier_sees_its_own_action_unit_only(tiny_model):
    features = torch.randn(1, 3, 16, requires_grad=True)
    tiny_model.classifier(features.flatten(1).unsqueeze(-1)).squeeze(-1)[0, 1].backward()
    assert features.grad[0, 1].abs().sum() > 0
    assert features.grad[0, [0, 2]].abs().sum() == 0


# --- losses ---


def test_the_masked_loss_is_bce_over_the_labelled_entries():
    logits, labels = torch.randn(4, 3), torch.tensor([[1.0, 0, -1], [0, 1, 1], [-1, -1, -1], [1, 1, 0]])
    weights, positive = torch.tensor([0.5, 1.0, 1.5]), torch.tensor([1.0, 2.0, 3.0])
    labelled = labels >= 0
    plain = nn.functional.binary_cross_entropy_with_logits(logits[labelled], labels[labelled])
    torch.testing.assert_close(occurrence_loss(logits, labels), plain)
    criterion = nn.BCEWithLogitsLoss(weight=weights, pos_weight=positive, reduction="none")
    weighted = criterion(logits, labels.clamp(min=0))[labelled].mean()
    torch.testing.assert_close(occurrence_loss(logits, labels, "bce", weights, positive), weighted)


def test_the_other_forms_follow_their_papers():
    logits, labels = torch.randn(6, 2, dtype=torch.float64).float(), torch.randint(0, 2, (6, 2)).float()
    p = logits.sigmoid()
    weights = torch.tensor([0.5, 1.5])
    asymmetric = -(labels * p.log() + (1 - labels) * p * (1 - p).log())
    torch.testing.assert_close(occurrence_loss(logits, labels, "asymmetric", weights), (asymmetric * weights).mean())
    right = torch.where(labels == 1, p, 1 - p)
    focal = -((1 - right) ** 3) * right.log()
    torch.testing.assert_close(occurrence_loss(logits, labels, "focal", focal_gamma=3.0), focal.mean())
    dice = 1 - (2 * (p * labels).sum(0) + 1) / ((p**2).sum(0) + (labels**2).sum(0) + 1)
    both = occurrence_loss(logits, labels, "bce", weights) + (dice * weights).mean()
    torch.testing.assert_close(occurrence_loss(logits, labels, "bce_dice", weights), both)


def test_the_asymmetric_factor_has_no_gradient_and_leaves_no_grad_blocks_alone():
    logits = torch.tensor([[0.3]], requires_grad=True)
    occurrence_loss(logits, torch.zeros(1, 1), "asymmetric").backward()
    torch.testing.assert_close(logits.grad, logits.detach().sigmoid() ** 2)  # p · d(-log(1-p))/dz, p held constant
    with torch.no_grad():
        occurrence_loss(logits, torch.zeros(1, 1), "asymmetric")
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("form", ["bce", "bce_dice", "asymmetric", "focal"])
def test_an_unlabelled_entry_has_no_gradient(form):
    logits = torch.randn(2, 3, requires_grad=True)
    occurrence_loss(logits, torch.tensor([[1.0, -1, 0], [-1, -1, -1]]), form).backward()
    assert (logits.grad != 0).tolist() == [[True, False, True], [False, False, False]]
    nothing = torch.full((2, 3), -1.0)
    assert occurrence_loss(logits, nothing, form).item() == 0


def test_dice_passes_over_an_au_without_labels():
    logits, targets = torch.randn(4, 2), torch.randint(0, 2, (4, 2)).float()
    labelled = torch.tensor([[1.0, 0]] * 4)
    expected = dice_loss(logits[:, :1], targets[:, :1], labelled[:, :1])
    torch.testing.assert_close(dice_loss(logits, targets, labelled), expected)


def test_intensity_is_learned_beside_occurrence_where_it_is_known():
    strength = torch.tensor([[0.0, 1.0]], requires_grad=True)
    intensity_loss(strength, torch.tensor([[2.5, -1.0]])).backward()
    assert strength.grad.tolist() == [[0.0, 0.0]]  # half of full intensity is sigmoid(0); -1 does not count
    config = GeaauConfig(**SMALL, action_units=[1, 12], predict_intensity=True, intensity_weight=2.0)
    model = GeaauModel(config).eval()
    labels, levels = torch.tensor([[1.0, 0]] * 2), torch.tensor([[4.0, -1]] * 2)
    output = model(images(), labels=labels, intensities=levels)
    assert ((output.intensities >= 0) & (output.intensities <= 5)).all()
    strengths = (output.intensities / 5).logit()
    occurrence = model(images(), labels=labels).loss
    torch.testing.assert_close(output.loss, occurrence + 2 * intensity_loss(strengths, levels))
    assert model(images(), intensities=torch.full((2, 2), -1.0)).loss.item() == 0
    with pytest.raises(ValueError, match="`intensities` must lie from 0 to 5, or be -1"):
        model(images(), intensities=torch.full((2, 2), 9.0))
    assert GeaauModel(GeaauConfig(**SMALL))(images()).intensities is None


def test_a_mask_region_counts_cells_by_what_it_covers():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, 1, 1] = 0.6
    masks[0, 0, 3, 3] = 0.4
    masks[0, 1] = 1 / 16
    regions = [[[0.0, 0.0, 0.5, 0.5]], [[0.0, 0.0, 0.125, 1.0], [0.875, 0.0, 1.0, 1.0]]]
    torch.testing.assert_close(mask_share(masks, regions), torch.tensor([[0.6, 0.25]]))


def test_the_region_prior_moves_masks_into_their_regions():
    regions = [[[0.0, 0.0, 1.0, 0.5]], [[0.0, 0.5, 1.0, 1.0]]]
    config = GeaauConfig(**SMALL, action_units=[1, 25], mask_regions=regions, mask_region_weight=1.0)
    model = GeaauModel(config).eval()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batch, labels = images(8), torch.full((8, 2), -1.0)  # no label: only the prior pulls
    before = mask_share(model(batch).au_masks, regions).mean()
    for _ in range(20):
        optimizer.zero_grad()
        model(batch, labels=labels).loss.backward()
        optimizer.step()
    assert before < 0.7
    assert mask_share(model(batch).au_masks, regions).mean() > 0.95


def test_a_frozen_encoder_stays_as_it_is():
    model = GeaauModel(GeaauConfig(**SMALL, action_units=[1, 12], freeze_encoder=True)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(images(), labels=torch.tensor([[1.0, 0]] * 2)).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("gee.") for name in changed)
    assert "classifier.weight" in changed


def test_group_normalisation_does_not_depend_on_the_batch():
    model = GeaauModel(GeaauConfig(**SMALL, lam_normalization="group", action_units=[1, 12])).train()
    model.gee.eval()  # this backbone has batch norm
    torch.testing.assert_close(model(images(4)).logits[:2], model(images(4)[:2]).logits)


def test_the_pooled_baseline_has_no_masks(tmp_path):
    model = GeaauModel(GeaauConfig(**SMALL, head="pooled", action_units=[1, 12])).eval()
    output = model(images(), labels=torch.tensor([[1.0, 0]] * 2))
    assert output.au_masks is None
    torch.testing.assert_close(output.logits, model.classifier(model.gee.norm(output.expression_map.mean((2, 3)))))
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(GeaauModel.from_pretrained(tmp_path).eval()(images()).logits, output.logits)


def test_a_batch_without_labels_costs_nothing(tiny_model):
    loss = tiny_model(images(), labels=torch.full((2, 3), -1.0)).loss
    loss.backward()
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in tiny_model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_config_weighs_the_loss(tiny_model):
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    plain = tiny_model(images(), labels=labels).loss
    tiny_model.config.au_weights = [2.0, 2.0, 2.0]
    torch.testing.assert_close(tiny_model(images(), labels=labels).loss, 2 * plain)


def test_the_triplet_loss_is_the_symmetric_hinge_on_squared_distances():
    embeddings = nn.functional.normalize(torch.randn(5, 3, 16), dim=-1)
    margins = torch.tensor([0.1, 0.2, 0.2, 0.1, 0.2])
    total = 0.0
    for (first, second, odd), margin in zip(embeddings.tolist(), margins.tolist(), strict=True):
        d12, d13, d23 = (
            sum((a - b) ** 2 for a, b in zip(u, v, strict=True))
            for u, v in ((first, second), (first, odd), (second, odd))
        )
        total += max(0, d12 - d13 + margin) + max(0, d12 - d23 + margin)
    distances = (embeddings[:, [0, 0, 1]] - embeddings[:, [1, 2, 2]]).pow(2).sum(-1)
    assert triplet_loss(distances, margins).item() == pytest.approx(total / 5, rel=1e-5)


def test_a_batch_orders_the_expressions_that_its_intensities_tell_apart():
    embedding = nn.functional.normalize(torch.randn(9, 16), dim=-1)
    strengths = 5 * (torch.rand(9, 6) < 0.4).float()
    squared = (embedding[:, None] - embedding[None]).pow(2).sum(-1)
    apart = torch.cdist(strengths, strengths) / 5
    losses = [
        max(0.0, float(squared[i, j] - squared[i, k] + 0.2)) + max(0.0, float(squared[i, j] - squared[j, k] + 0.2))
        for i, j in itertools.combinations(range(9), 2)
        for k in {*range(9)} - {i, j}
        if min(apart[i, k], apart[j, k]) >= apart[i, j] + EXPRESSION_GAP
    ]
    losses = [loss for loss in losses if loss > 0]
    wanted = sum(losses) / len(losses)
    assert batch_triplet_loss(embedding, strengths, 0.2).item() == pytest.approx(wanted, rel=1e-4)
    incomplete = torch.cat([strengths, torch.tensor([[1.0, -1, 1, 1, 1, 1]])])
    more = batch_triplet_loss(torch.cat([embedding, embedding[:1]]), incomplete, 0.2)
    assert more.item() == pytest.approx(wanted, rel=1e-4)
    assert batch_triplet_loss(embedding[:2], strengths[:2], 0.2) == 0
    assert EXPRESSION_GAP == MIN_GAP


def test_the_embedding_is_trained_with_the_action_units_if_the_config_says_so():
    strengths = 5 * torch.eye(4)[[0, 0, 1, 1, 2, 2]][:, :3]
    labels = (strengths > 0).float()
    for weight in (0.0, 1.0):
        model = GeaauModel(GeaauConfig(**SMALL, action_units=[1, 12, 25], embedding_weight=weight)).train()
        model(images(6), labels=labels, intensities=strengths).loss.backward()
        assert (model.gee.projection.weight.grad is not None) == bool(weight)


@pytest.mark.slow
def test_it_learns_eight_samples():
    torch.manual_seed(0)
    model = build("test_resnet").train()
    pixel_values, labels = images(8), (torch.rand(8, 3) < 0.5).float()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = model(pixel_values, labels=labels).loss.item()
    for _ in range(100):
        loss = model(pixel_values, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < first


# --- stage 1 ---


def test_expression_embedding_and_the_start_of_stage_two(tiny_config, tmp_path):
    encoder = GeaauForExpressionEmbedding(copy.deepcopy(tiny_config)).eval()
    triplets = torch.randn(4, 3, 3, 64, 64)
    output = encoder(triplets, triplet_types=torch.tensor([0, 1, 2, 0]))
    assert output.expression_embedding.shape == (4, 3, 16)
    single = encoder(triplets[:, 1]).expression_embedding
    torch.testing.assert_close(output.expression_embedding[:, 1], single)
    margins = torch.tensor([0.1, 0.2, 0.2, 0.1])
    torch.testing.assert_close(output.loss, triplet_loss(output.distances, margins))
    output.loss.backward()
    encoder.save_pretrained(tmp_path)

    model = GeaauModel.from_expression_encoder(str(tmp_path), tiny_config)
    assert_same_tensors(encoder.gee, model.gee)
    tiny_config.trained_on = ["bp4d"]
    encoder.config.trained_on = ["fec"]
    encoder.save_pretrained(tmp_path)
    assert GeaauModel.from_expression_encoder(str(tmp_path), tiny_config).config.trained_on == ["fec", "bp4d"]
    other = GeaauConfig(**{**tiny_config.to_diff_dict(), "embedding_dim": 8})
    with pytest.raises(ValueError, match="`embedding_dim` must be the encoder's"):
        GeaauModel.from_expression_encoder(str(tmp_path), other)


# --- bad input ---


def test_wrong_shapes_and_labels_are_named(tiny_model):
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), got \(2, 1, 64, 64\)"):
        tiny_model(torch.zeros(2, 1, 64, 64))
    with pytest.raises(ValueError, match=r"shape \(2, 3\), got \(2, 12\).*predicts 3 AUs: AU01, AU12, AU25"):
        tiny_model(images(), labels=torch.zeros(2, 12))
    with pytest.raises(ValueError, match="Map BP4D's 9 to -1"):
        tiny_model(images(), labels=torch.tensor([[1.0, 9, 0], [0, 0, 0]]))


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(ValueError, match="got 'resnt50'. Did you mean 'resnet50'"):
        GeaauModel(GeaauConfig(backbone="resnt50"))
    with pytest.raises(ValueError, match="backbone_stage=9"):
        GeaauModel(GeaauConfig(backbone="test_resnet", backbone_stage=9))


def test_pickles_are_refused(tiny_model, tmp_path):
    tiny_model.config.save_pretrained(tmp_path)
    torch.save(tiny_model.state_dict(), tmp_path / "pytorch_model.bin")
    for auto in (GeaauModel, AutoModel, AutoModelForImageClassification):
        with pytest.raises(OSError, match="safetensors"):
            auto.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`use_safetensors` must be True"):
        GeaauModel.from_pretrained(tmp_path, use_safetensors=False)


def test_pretrained_weights_are_never_fetched_on_loading(tiny_checkpoint):
    with pytest.raises(ValueError, match="belongs to a new model"):
        GeaauModel.from_pretrained(tiny_checkpoint, pretrained_backbone=True)


def test_activation_checkpointing_refuses_batch_norm(tiny_model):
    with pytest.raises(ValueError, match="Cannot use activation checkpointing"):
        tiny_model.activation_checkpointing_enable()
    model = build("test_vit").train()
    expected = model(images(), labels=torch.ones(2, 3)).loss
    model.activation_checkpointing_enable()
    torch.testing.assert_close(model(images(), labels=torch.ones(2, 3)).loss, expected)
    assert model.is_activation_checkpointing
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_hidden_states_are_the_stages_up_to_the_expression_map(tiny_model):
    assert tiny_model(images()).hidden_states is None
    output = tiny_model(images(), output_hidden_states=True)
    assert [states.shape[-1] for states in output.hidden_states] == [32, 16, 8, 4, 2]
    assert output.hidden_states[-1] is output.expression_map
    torch.testing.assert_close(output.logits, tiny_model(images()).logits)
    encoder = GeaauForExpressionEmbedding(tiny_model.config).eval()
    triplets = torch.stack([images()] * 3, dim=1)
    assert encoder(triplets, output_hidden_states=True).hidden_states[0].shape[:2] == (2, 3)


def test_the_config_chooses_tuples_and_hidden_states(tiny_model):
    tiny_model.config.return_dict = False
    tiny_model.config.output_hidden_states = True
    output = tiny_model(images())
    assert isinstance(output, tuple)
    assert len(output[-1]) == 5


def test_an_unknown_keyword_is_refused(tiny_model):
    with pytest.raises(TypeError, match=r"GeaauModel got an unknown keyword 'lables'\. Did you mean 'labels'\?"):
        tiny_model(images(), lables=torch.ones(2, 3))
    with pytest.raises(ValueError, match="`output_attentions` must be False"):
        tiny_model(images(), output_attentions=True)
    assert tiny_model(images(), output_attentions=False, use_cache=False).loss is None


def test_labels_may_be_booleans_but_not_255(tiny_model):
    labels = torch.tensor([[True, False, True], [False, True, True]])
    expected = tiny_model(images(), labels=labels.float()).loss
    torch.testing.assert_close(tiny_model(images(), labels=labels).loss, expected)
    with pytest.raises(ValueError, match="`labels` must be"):
        tiny_model(images(), labels=torch.full((2, 3), 255, dtype=torch.uint8))


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_vit", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("include_buffers", [False, True])
def test_a_model_built_without_memory_takes_a_state_dict(backbone, include_buffers):
    accelerate = pytest.importorskip("accelerate")
    model = build(backbone)
    with accelerate.init_empty_weights(include_buffers=include_buffers):
        empty = build(backbone)
    empty.load_state_dict(model.state_dict(), assign=True)
    assert_same_tensors(model, empty)
    with torch.no_grad():
        torch.testing.assert_close(empty(images()).logits, model(images()).logits)


@pytest.mark.slow
def test_tied_weights_inside_a_backbone_are_saved_once(tmp_path):
    settings = {**SMALL, "backbone": "coat_tiny", "backbone_kwargs": {"embed_dims": [16, 16, 16, 16]}}
    config = GeaauConfig(**settings, action_units=[1, 12])
    model = GeaauModel(config).eval()
    model.save_pretrained(tmp_path)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    for again in (GeaauModel.from_pretrained(tmp_path), load_checkpoint(tmp_path)[0]):
        torch.testing.assert_close(again(images()).logits, model(images()).logits)
        blocks = again.gee.backbone.model
        assert blocks.serial_blocks1[0].cpe.proj.weight is blocks.cpe1.proj.weight


def test_a_checkpoint_takes_labels_only_in_its_own_order(tiny_checkpoint):
    labels = {0: "AU01", 1: "AU12", 2: "AU25"}
    model = AutoModelForImageClassification.from_pretrained(tiny_checkpoint, id2label=labels, num_labels=3)
    assert model.config.id2label == labels
    with pytest.raises(ValueError, match="`action_units` must be those of the checkpoint"):
        GeaauModel.from_pretrained(tiny_checkpoint, id2label={0: "AU12", 1: "AU01", 2: "AU25"})


def test_attention_and_embeddings_are_those_of_a_vision_model(tiny_checkpoint):
    model = AutoModel.from_pretrained(tiny_checkpoint, attn_implementation="sdpa")
    assert model.get_input_embeddings() is None
    with pytest.raises(NotImplementedError, match="no token embeddings"):
        model.set_input_embeddings(nn.Embedding(2, 2))


def test_pushing_and_saving_have_the_signature_of_transformers():
    for name in ("push_to_hub", "save_pretrained"):
        assert inspect.signature(getattr(GeaauModel, name)) == inspect.signature(getattr(PreTrainedModel, name))


def test_the_model_takes_a_state_dict_without_a_folder(tiny_model):
    again = GeaauModel.from_pretrained(None, config=tiny_model.config, state_dict=tiny_model.state_dict())
    assert_same_tensors(tiny_model, again)
