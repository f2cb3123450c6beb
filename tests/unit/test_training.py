"""Recipes, training data, parameter groups, starting points and checkpoints; runs are in tests/integration."""

import copy
import dataclasses
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hf_geaau import GeaauImageProcessor, GeaauModel, facs
from hf_geaau.data import class_weights, open_aligned, prepare, write_example
from hf_geaau.errors import DatasetError, TrainingError
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, similarity_transform
from hf_geaau.training import (
    Augmentation,
    Collator,
    CropDataset,
    RenderedRecipe,
    build_model,
    build_trainer,
    datasets_of,
    list_recipes,
    load_recipe,
    open_split,
    parameter_groups,
    start_from_imagenet,
    training_config,
)
from hf_geaau.training.augmentation import StyleBank, Warp, augmentations, mirrored
from hf_geaau.training.checkpoints import has_ended, is_whole, resume_point
from hf_geaau.training.splits import never_shown
from hf_geaau.training.trainer import GroupedConvolutionsInFloat32, has_fast_bfloat16, training_arguments

STRONG = Augmentation(rotation=10.0, scale=0.1, shift=0.1, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05,
                      gray=0.5, blur=0.5, jpeg=0.5, erasing=0.5, points=0.05, style=0.5, gamma=0.4, gain=0.2,
                      frequency=0.5, coarse=0.5, noise=0.05)  # fmt: skip
SMALL = ["model.backbone=test_resnet", "model.backbone_kwargs=null", "model.backbone_stage=-1", "model.image_size=32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_example("synthetic", tmp_path_factory.mktemp("data") / "faces", identities=9, frames=4, size=48)


@pytest.fixture(scope="module")
def rows(folder):
    return open_aligned("synthetic", folder, 1, "train")


def crops(rows, **arguments) -> CropDataset:
    return CropDataset(rows, 32, facs.SYNTHETIC, **arguments)


# Recipes.


def test_every_recipe_loads_and_states_its_sources():
    assert list(list_recipes()) == [
        "base", "bp4d", "bp4d_plus", "bundled", "disfa", "fec", "folder", "synthetic", "synthetic_gee",
    ]  # fmt: skip
    for name in list_recipes():
        recipe = load_recipe(name)
        assert load_recipe(recipe.to_dict()) == recipe
    bp4d = load_recipe("bp4d")
    assert (bp4d.learning_rate, bp4d.weight_decay, bp4d.batch_size, bp4d.epochs) == (1e-4, 5e-4, 64, 20)  # ME-GraphAU
    assert load_recipe("fec").model["triplet_margins"] == [0.1, 0.2, 0.2]  # FECNet


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lerning_rate=1", "A recipe has no key 'lerning_rate'. Did you mean 'learning_rate'?"),
        ("learning_rate=fast", "`learning_rate` must be a number, got 'fast'."),
        ("batch_size=1.5", "`batch_size` must be an integer, got 1.5."),
        ("learning_rate=0", "`learning_rate` must be above 0, got 0."),
        ("validation_share=1", "`validation_share` must be at most 0.9, got 1."),
        ("stage=expresion", "'action_units', got 'expresion'. Did you mean 'expression'?"),
        ("dataset=bp5d", "Did you mean 'bp4d'?"),
        ("options.camra=left", "Did you mean"),
        ("model.backbon=resnet18", "GeaauConfig got an unknown keyword 'backbon'. Did you mean 'backbone'?"),
        ("model.image_size=big", "`model.image_size` must be an integer, got 'big'."),
        ("model.label_smoothing=2", "`label_smoothing` must lie in [0, 1), got 2.0."),
        ("model.action_units=[1, 45]", "`model.action_units` must be among those of bp4d"),
        ("modle.backbone=x", "got 'modle.backbone'. Did you mean 'model'?"),
        ("augmentation.miror=1", "A recipe has no key 'augmentation.miror'. Did you mean 'mirror'?"),
        ("augmentation.mirror=3", "`augmentation.mirror` must be at most 1, got 3."),
        ("max_steps=5", "Exactly one of `epochs` and `max_steps` must be set, got epochs=20.0 and max_steps=5."),
        ("start_from=x", "Only one of `expression_encoder` and `start_from` can be set, got both."),
        ("ema_decay=2", "`ema_decay` must be at most 1, got 2."),
        ("learning_rate", "A setting must be KEY=VALUE, such as learning_rate=1e-3, got 'learning_rate'."),
        ("model.backbone=[", "Cannot read the value of 'model.backbone' as YAML: '['."),
        ("optimizer=adamW", "`optimizer` must be one of 'adamw', 'sgd', got 'adamW'. Did you mean 'adamw'?"),
        ("model.loss=bcee", "`model.loss` must be one of 'bce', 'bce_dice', 'asymmetric', 'focal', got 'bcee'."),
        ("model.triplet_margins=[a]", "`model.triplet_margins` must be a number, got 'a'."),
        ("model=3", "`model` must be a mapping, got 3."),
        ("pretrained_backbone=3", "`pretrained_backbone` must be true or false, got 3."),
        ("layer_decay=.nan", "`layer_decay` must be a finite number, got nan."),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(change, message):
    changes = ["expression_encoder=y", change] if change.startswith("start_from") else [change]
    if change.startswith("options"):
        changes.append("dataset=disfa")
    with pytest.raises(TrainingError, match=re.escape(message)) as error:
        load_recipe("bp4d", changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("renders.trian=5", "A recipe has no key 'renders.trian'. Did you mean 'train'?"),
        ("renders.test=0", "`renders.test` must be at least 1, got 0."),
        ("renders={train: 5}", "A recipe must have the key 'renders.validation', got train."),
        ("false_alarm_rate=2", "`false_alarm_rate` must be at most 1, got 2."),
        ("dataset=bp4d", "`dataset` must be 'synthetic', got 'bp4d'."),
        ("expression_encoder=x", "`gee` must be false where `expression_encoder` or `start_from` is set, got both."),
    ],
)
def test_wrong_rendered_recipes_are_one_line(change, message):
    with pytest.raises(TrainingError, match=re.escape(message)):
        load_recipe("bundled", ["gee=true", change])


def test_what_belongs_to_the_other_stage_is_null():
    with pytest.raises(TrainingError, match="`start_from` must be null in stage 'expression', got 'x'"):
        load_recipe("fec", ["start_from=x"])


def test_recipes_of_earlier_versions_load():
    """A recipe.yaml names every key, in both stages the same, with the spelling of its time."""
    for name in ("fec", "synthetic", "bundled"):
        recipe = load_recipe(name)
        values = recipe.to_dict()
        values["augmentation"]["grey"] = values["augmentation"].pop("gray")
        values["threshold_slack"] = 0.0
        assert load_recipe(values) == recipe
    assert load_recipe("bp4d", ["augmentation.grey=0.3"]).augmentation.gray == 0.3


def test_a_range_of_thresholds_goes_from_low_to_high():
    with pytest.raises(TrainingError, match=r"`threshold_range` must be \[lowest, highest\], got \[0.5, 0.4\]"):
        load_recipe("bundled", ["threshold_range=[0.5,0.4]"])


def test_only_what_decides_the_weights_makes_another_run():
    before = load_recipe("bundled")
    assert isinstance(before, RenderedRecipe)
    calibration = load_recipe(
        before, ["false_alarm_rate=0.1", "threshold_range=[0,1]", "workers=1", "max_megabytes=20"]
    )
    assert calibration != before
    assert calibration.weight_settings() == before.weight_settings()
    assert load_recipe(before, ["seed=1"]).weight_settings() != before.weight_settings()


def test_recipe_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "stage: action_units\ndataset: synthetic\nlearning_rate: 1e-3\nepochs: 2\nmodel: {image_size: 64}\n"
    )
    recipe = load_recipe(path, ["model.backbone_kwargs.drop_path_rate=0.1", "weight_decay=0"])
    assert (recipe.learning_rate, recipe.weight_decay, recipe.model["image_size"]) == (1e-3, 0.0, 64)
    assert recipe.model["backbone_kwargs"] == {"drop_path_rate": 0.1}
    with pytest.raises(TrainingError, match="A recipe must be one of base, .*, got 'bp4'. Did you mean 'bp4d'"):
        load_recipe("bp4")
    path.write_text("- 1")
    with pytest.raises(TrainingError, match="A recipe must hold `key: value` lines"):
        load_recipe(path)
    path.write_text("dataset: bp4d")
    with pytest.raises(TrainingError, match="A recipe must have the key 'stage'"):
        load_recipe(path)


def test_global_batch_is_divided(tmp_path, monkeypatch):
    recipe = load_recipe("bp4d", ["batch_size=48", "per_device_batch_size=10", "precision=fp32"])
    arguments = training_arguments(recipe, tmp_path, use_cpu=True)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 6)
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(TrainingError, match="`batch_size` must be a multiple of the number of processes, got 48 for 5"):
        training_arguments(recipe, tmp_path, use_cpu=True)


def test_without_validation_a_checkpoint_is_saved_within_an_epoch(tmp_path):
    """Else a training of one epoch would be lost as a whole."""
    recipe = load_recipe("synthetic", {"evaluate_steps": None, "epochs": 1})
    arguments = training_arguments(recipe, tmp_path, with_validation=False, use_cpu=True)
    assert (arguments.save_strategy, arguments.save_steps, arguments.eval_strategy) == ("steps", 0.1, "no")
    arguments = training_arguments(recipe, tmp_path, use_cpu=True)
    assert (arguments.save_strategy, arguments.eval_strategy) == ("epoch", "epoch")
    recipe = load_recipe("synthetic", {"evaluate_steps": 40})
    assert training_arguments(recipe, tmp_path, with_validation=False, use_cpu=True).save_steps == 40


def test_bfloat16_that_a_cpu_emulates_gives_way_to_float32(tmp_path, monkeypatch, caplog):
    recipe = load_recipe("synthetic", {"precision": "bf16"})
    monkeypatch.setattr("hf_geaau.training.trainer.has_fast_bfloat16", lambda: True)
    assert training_arguments(recipe, tmp_path, use_cpu=True).bf16
    monkeypatch.setattr("hf_geaau.training.trainer.has_fast_bfloat16", lambda: False)
    assert not caplog.records
    assert not training_arguments(recipe, tmp_path, use_cpu=True).bf16
    assert caplog.messages == ["This CPU has no fast bfloat16: training in float32."]
    assert isinstance(has_fast_bfloat16(), bool)


def test_grouped_convolutions_are_computed_in_float32():
    pixels = torch.randn(2, 8, 9, 9).bfloat16()
    depthwise, dense = torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        emulated = depthwise(pixels), dense(pixels)
        with GroupedConvolutionsInFloat32():
            exact, same = depthwise(pixels), dense(pixels)
    assert exact.dtype == same.dtype == torch.bfloat16
    assert torch.equal(exact, depthwise(pixels.float()).bfloat16())
    assert torch.equal(same, emulated[1])
    assert torch.allclose(exact.float(), emulated[0].float(), atol=0.05)
    exact.float().sum().backward()
    assert depthwise.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_only_bfloat16_on_a_cpu_needs_that(tmp_path, rows, monkeypatch, precision):
    monkeypatch.setattr("hf_geaau.training.trainer.has_fast_bfloat16", lambda: True)
    recipe = load_recipe("synthetic", [*SMALL, f"precision={precision}"])
    trainer = build_trainer(recipe, crops(rows), output=tmp_path, use_cpu=True)
    with trainer.compute_loss_context_manager():
        modes = [type(mode) for mode in torch.overrides._get_current_function_mode_stack()]
    assert modes == [GroupedConvolutionsInFloat32] * (precision == "bf16")


# Data.


def test_chance_depends_on_seed_epoch_and_row_alone(rows):
    dataset = crops(rows, augmentation=STRONG, shuffle=True, batch_size=5, seed=3)
    assert len(dataset) == len(rows) // 5 * 5
    collate = Collator(GeaauImageProcessor(size={"height": 32, "width": 32}))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    batches = {}
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(dataset, 5, num_workers=workers, collate_fn=collate,
                                             persistent_workers=workers > 0)  # fmt: skip
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            batches[workers, epoch] = list(loader)
    for epoch in (0, 1):
        for here, there in zip(batches[0, epoch], batches[2, epoch], strict=True):
            assert torch.equal(here["pixel_values"], there["pixel_values"])
            assert torch.equal(here["labels"], there["labels"])
    assert not torch.equal(batches[0, 0][0]["pixel_values"], batches[0, 1][0]["pixel_values"])
    dataset.set_epoch(0)
    order = [dataset[place]["row"] for place in range(len(dataset))]
    assert len(set(order)) == len(order)
    assert order != sorted(order)
    torch.manual_seed(1)
    for place in range(4):
        dataset[place]
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws from the same generator


def test_crops_are_those_of_inference(rows):
    dataset = crops(rows)
    processor = GeaauImageProcessor(size={"height": 32, "width": 32})
    batch = Collator(processor)([dataset[place] for place in range(6)])
    expected = processor(rows[:6]["image"], return_tensors="pt").pixel_values
    torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=1e-6)
    assert batch["pixel_values"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].tolist() == rows[:6]["labels"]


def test_triplets_keep_their_order(folder):
    triplets = open_aligned("synthetic", folder, None, triplets=6)
    dataset = CropDataset(triplets, 32)
    batch = Collator(GeaauImageProcessor(size={"height": 32, "width": 32}))([dataset[0], dataset[1]])
    assert batch["pixel_values"].shape == (2, 3, 3, 32, 32)
    assert batch["triplet_types"].tolist() == triplets["triplet_type"][:2]
    processor = GeaauImageProcessor(size={"height": 32, "width": 32})
    odd = processor(triplets[1]["images"][2], return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(batch["pixel_values"][1, 2], odd, rtol=0, atol=1e-6)


def test_augmentation_changes_what_it_says():
    image = torch.randint(20, 200, (3, 32, 32), dtype=torch.uint8)
    styles = StyleBank.of(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8) // 2)
    assert torch.equal(augmentations(Augmentation(mirror=0.0))(image), image)
    assert [mirrored(Augmentation(mirror=share)) for share in (0.0, 1.0)] == [False, True]
    gray = augmentations(Augmentation(mirror=0.0, gray=1.0))(image)
    assert torch.equal(gray[0], gray[1])
    large = {"rotation": 20.0, **dict.fromkeys(("style", "frequency", "coarse", "blur", "jpeg", "erasing"), 1.0)}
    for field in Augmentation.model_fields:
        if field in ("mirror", "gray"):
            continue
        settings = Augmentation(mirror=0.0, **{field: large.get(field, 0.3)})
        draws = [augmentations(settings, 32, styles)(image) for _ in range(3)]  # one alone may be next to nothing
        assert all((changed.shape, changed.dtype) == (image.shape, torch.uint8) for changed in draws)
        assert not all(torch.equal(changed, image) for changed in draws), field


def test_style_moves_the_statistics_toward_another_image(monkeypatch):
    bright = torch.randint(150, 256, (1, 3, 32, 32), dtype=torch.uint8)
    dark = torch.randint(0, 100, (3, 32, 32), dtype=torch.uint8)
    styles = StyleBank.of(bright)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.zeros(*shape) + 0.999)
    changed = augmentations(Augmentation(mirror=0.0, style=1.0), 32, styles)(dark).float() / 255
    torch.testing.assert_close(changed.mean((1, 2)), styles.means[0], atol=0.02, rtol=0)
    torch.testing.assert_close(changed.std((1, 2)), styles.deviations[0], atol=0.02, rtol=0)
    mixed = styles.mix_frequencies(dark).float()
    assert mixed.mean() == pytest.approx(float(bright.float().mean()), abs=3)  # the lowest frequency is the mean
    high = torch.fft.rfft2(dark.float()) - torch.fft.rfft2(mixed)
    assert high[:, 10:20, 10:].abs().mean() < 0.05 * torch.fft.rfft2(dark.float())[:, 10:20, 10:].abs().mean()


def test_noise_on_points_moves_a_crop_as_wrong_points_would():
    """The first-order answer against the aligner's least squares, which cuts the crop in reality."""
    warp = Warp(Augmentation(mirror=0.0, points=0.01))
    template = np.asarray(CROP_TEMPLATE)
    state = torch.get_rng_state()
    angle, scale, shift = warp.misalignment()
    torch.set_rng_state(state)
    noise = torch.randn(5, 2).numpy() * 0.01 * warp.eyes
    exact = similarity_transform(template + noise, template)
    assert angle == pytest.approx(math.degrees(math.atan2(exact[1, 0], exact[0, 0])), abs=0.05)
    assert scale == pytest.approx(math.hypot(exact[0, 0], exact[1, 0]), abs=0.001)
    middle = exact[:, :2] @ [0.5, 0.5] + exact[:, 2] - 0.5
    assert shift.tolist() == pytest.approx(middle.tolist(), abs=0.001)


def test_traces_are_left_out_of_the_labels_alone(rows):
    plain, without = (crops(rows, with_intensities=True, ignore_traces=ignore) for ignore in (False, True))
    strength = without.targets["intensities"]
    trace = (strength > 0) & (strength < 1)
    assert trace.any()
    assert (without.targets["labels"][trace] == -1).all()
    assert torch.equal(without.targets["labels"][~trace], plain.targets["labels"][~trace])


def test_wrong_labels_are_named(rows):
    wide = rows.remove_columns("labels").add_column("labels", [[1.0, 0.0]] * len(rows))
    with pytest.raises(TrainingError, match="Each row must have 18 labels, one for each of AU01, .*, got 2"):
        crops(wide)
    values = np.array(rows["labels"][:])
    values[5, 2] = 9
    nine = rows.remove_columns("labels").add_column("labels", values.tolist())
    with pytest.raises(TrainingError, match=r"Labels must be 1 .* or -1 .*, got 9 for AU04 in row 5. Map other codes"):
        crops(nine)
    with pytest.raises(TrainingError, match="The training data has no rows. Check the fold"):
        crops(rows.select([]))


def test_nan_and_damaged_images_are_named(rows, tmp_path):
    collate = Collator(GeaauImageProcessor(size={"height": 32, "width": 32}))
    items = [{"pixel_values": torch.zeros(3, 32, 32), "row": row} for row in (4, 7)]
    items[1]["pixel_values"][0, 3, 3] = math.nan
    with pytest.raises(TrainingError, match="Images must hold finite numbers, got NaN or infinity in row 7"):
        collate(items)
    path = tmp_path / "nan.tif"
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(path)
    broken = tmp_path / "half.jpg"
    Image.new("RGB", (40, 40)).save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    missing = tmp_path / "no.jpg"
    for file, reason in ((path, "got 1600 NaN"), (broken, "truncated or damaged"), (missing, "no such file")):
        changed = rows.select([0]).remove_columns("image").add_column("image", [{"path": str(file), "bytes": None}])
        with pytest.raises(TrainingError, match=f"Cannot read the image of row 0 .*{file.name}.*{reason}"):
            crops(changed)[0]


def test_validation_subjects_come_from_the_training_subjects(folder):
    recipe = load_recipe("synthetic", [*SMALL, "validation_share=0.3", "model.predict_intensity=true"])
    split = open_split(recipe, folder, 2)
    assert len(split.train_subjects) == 4
    assert len(split.validation_subjects) == 2
    assert set(split.train["subject_id"]) == set(split.train_subjects)
    assert set(split.validation["subject_id"]) == set(split.validation_subjects)
    assert not set(split.train_subjects) & set(split.validation_subjects)
    assert open_split(recipe, folder, 2).validation_subjects == split.validation_subjects
    train_set, validation_set = datasets_of(recipe, split, training_config(recipe, split))
    assert train_set.augment is not None
    assert validation_set.augment is None
    assert train_set[0]["intensities"].shape == (18,)


def test_one_subject_cannot_be_divided(tmp_path):
    folder = write_example("synthetic", tmp_path / "one", identities=1, frames=3, size=32)
    with pytest.raises(TrainingError, match="Validation holds out whole subjects, and .* has only 1 to train on"):
        open_split(load_recipe("synthetic"), folder, None)


# Starting points and parameter groups.


def test_class_weights_are_those_of_the_training_rows(folder):
    recipe = load_recipe("synthetic", [*SMALL, "class_weighting=inverse_rate"])
    split = open_split(recipe, folder, 1)
    labels = np.array(split.train["labels"][:], np.float32)
    labels[:, 3] = 0  # AU05
    changed = split.train.remove_columns("labels").add_column("labels", labels.tolist())
    split = dataclasses.replace(split, train=changed)
    assert "AU05" in never_shown(recipe, split)
    config = training_config(recipe, split)
    labels[0, ~(labels == 1).any(axis=0)] = 1
    assert config.au_weights == pytest.approx(class_weights(labels).tolist())
    assert sum(config.au_weights) / 18 == pytest.approx(1)
    assert config.trained_on == ["synthetic"]
    per_positive = training_config(load_recipe(recipe, {"class_weighting": "pos_weight"}), split).pos_weight
    assert per_positive == pytest.approx((labels == 0).sum(0) / (labels == 1).sum(0))


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_parameter_groups(layer_decay):
    rates = ["encoder_learning_rate_scale=0.1", "learning_rate=1", "weight_decay=0.5"]
    recipe = load_recipe(load_recipe("synthetic", [*SMALL, *rates]), {"layer_decay": layer_decay})
    model = build_model(recipe)
    groups = parameter_groups(model, recipe)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0), name
        if not name.startswith("gee."):
            assert group["lr"] == 1, name
        elif layer_decay is None or "projection" in name:
            assert group["lr"] == pytest.approx(0.1), name
    first = found[id(next(model.gee.parameters()))]["lr"]
    assert first == pytest.approx(0.1) if layer_decay is None else first < 0.1
    model.gee.requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, recipe)) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )


def test_another_au_list_keeps_heads_by_number(tiny_checkpoint):
    """The list has the same length, so that mixing up AUs would go unnoticed by shapes."""
    old = GeaauModel.from_pretrained(tiny_checkpoint)  # AU01, AU12, AU25
    settings = [*SMALL, "model.image_size=64", "model.action_units=[25, 6, 1]", f"start_from={tiny_checkpoint}"]
    settings += ["model.lam_hidden_channels=12", "model.lam_feature_channels=16", "model.label_smoothing=0.1"]
    settings += ["model.classifier_dropout=0.0"]
    model = build_model(load_recipe("synthetic", settings))
    assert model.config.action_units == [25, 6, 1]
    assert model.config.label_smoothing == 0.1
    assert torch.equal(model.classifier.weight[0], old.classifier.weight[2])
    assert torch.equal(model.classifier.weight[2], old.classifier.weight[0])
    crop = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        here, there = model.eval()(crop).logits, old.eval()(crop).logits
    torch.testing.assert_close(here[:, [0, 2]], there[:, [2, 0]])
    with pytest.raises(TrainingError, match=r"`model.backbone` must be that of `start_from` .*, got 'test_vit'"):
        build_model(load_recipe("synthetic", [*settings, "model.backbone=test_vit"]))
    with pytest.raises(TrainingError, match="`backbone` must be the encoder's"):
        wrong = [*settings, "start_from=null", f"expression_encoder={tiny_checkpoint}", "model.backbone=test_vit"]
        build_model(load_recipe("synthetic", wrong))


def test_no_backbone_stays_at_random_weights_where_imagenet_was_asked_for(tiny_model):
    with pytest.raises(TrainingError, match=r"weights of tf_efficientnet_lite0.* only, got test_\w+\. Build"):
        start_from_imagenet(tiny_model)


def test_a_batch_without_labels_moves_nothing(tiny_model):
    model = copy.deepcopy(tiny_model).train()
    loss = model(torch.rand(2, 3, 64, 64), labels=torch.full((2, 3), -1.0)).loss
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


# Crops and checkpoints.


def test_prepared_crops_open_like_the_data(folder, tmp_path):
    out = tmp_path / "crops"
    prepare("synthetic", folder, out, size=48, workers=1)
    for fold, split in ((1, "test"), (2, "train"), (None, "train")):
        here, there = open_aligned("synthetic", out, fold, split), open_aligned("synthetic", folder, fold, split)
        assert sorted(zip(here["subject_id"], here["frame"], strict=True)) == sorted(
            zip(there["subject_id"], there["frame"], strict=True)
        )
    assert crops(open_aligned("synthetic", out, 1, "train"))[0]["pixel_values"].shape == (3, 32, 32)
    with pytest.raises(DatasetError, match="are of synthetic, not of bp4d"):
        open_aligned("bp4d", out)
    with pytest.raises(DatasetError, match="were cut with triplets=0, not 5"):
        open_aligned("synthetic", out, triplets=5)
    shutil.rmtree(out / "data")
    with pytest.raises(DatasetError, match="The crops in .* are unfinished"):
        open_aligned("synthetic", out)


def test_raw_frames_are_refused_with_the_remedy(tmp_path):
    raw = write_example("bp4d", tmp_path / "raw", subjects_per_part=1, frames=1, faces=False)
    with pytest.raises(DatasetError, match="Cut them once with `hf-geaau prepare bp4d --data-dir .*raw --output"):
        open_aligned("bp4d", raw)


def test_only_whole_checkpoints_count(tmp_path, tiny_model):
    for step in (2, 4, 6):
        path = tmp_path / f"checkpoint-{step}"
        tiny_model.save_pretrained(path)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({"step": step}, path / name)
        (path / "trainer_state.json").write_text(f'{{"global_step": {step}, "max_steps": 6}}')
        assert is_whole(path)
    assert resume_point(tmp_path).name == "checkpoint-6"
    (tmp_path / "checkpoint-6" / "trainer_state.json").write_text('{"global_st')
    weights = tmp_path / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert resume_point(tmp_path).name == "checkpoint-2"
    assert not (tmp_path / "checkpoint-6").exists()
    assert has_ended({"global_step": 6, "max_steps": 6}, None)
    waited = {"EarlyStoppingCallback": {"attributes": {"early_stopping_patience_counter": 3}}}
    assert has_ended({"global_step": 4, "max_steps": 6, "stateful_callbacks": waited}, 3)
    assert not has_ended({"global_step": 4, "max_steps": 6, "stateful_callbacks": waited}, 4)
