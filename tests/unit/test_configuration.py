import json

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from hf_geaau import GeaauConfig


def test_labels_and_thresholds_follow_from_the_action_units():
    config = GeaauConfig(action_units=[12, 25])
    assert config.id2label == {0: "AU12", 1: "AU25"}
    assert config.label2id == {"AU12": 0, "AU25": 1}
    assert config.thresholds == [0.5, 0.5]
    assert config.problem_type == "multi_label_classification"
    config.action_units = [1, 2, 4]
    assert list(config.id2label.values()) == ["AU01", "AU02", "AU04"]
    assert config.thresholds == [0.5] * 3


def test_defaults_are_bp4d(tmp_path):
    assert list(GeaauConfig().label2id) == [
        "AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24",
    ]  # fmt: skip


def test_saving_and_loading_changes_nothing(tmp_path):
    config = GeaauConfig(action_units=[6, 12], thresholds=[0.3, 0.7], au_weights=[0.5, 1.5], backbone_stage=-2)
    config.save_pretrained(tmp_path)
    assert GeaauConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


def test_another_list_on_loading_resets_what_no_longer_fits(tmp_path):
    GeaauConfig(action_units=[6, 12], thresholds=[0.3, 0.7], pos_weight=[1.0, 2.0]).save_pretrained(tmp_path)
    config = GeaauConfig.from_pretrained(tmp_path, action_units=[1, 2, 4])
    assert config.thresholds == [0.5] * 3
    assert config.pos_weight is None
    assert config.num_labels == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam_hiden_channels": 8}, "unknown keyword 'lam_hiden_channels'. Did you mean 'lam_hidden_channels'?"),
        ({"num_labels": 3}, "`num_labels` follows from `action_units`"),
        ({"id2label": {0: "smile"}}, "`id2label` follows from `action_units`"),
        ({"action_units": []}, "distinct FACS numbers"),
        ({"action_units": [1, 1]}, "distinct FACS numbers"),
        ({"thresholds": [0.5]}, r"`thresholds` must have one value per action unit \(12\), got 1"),
        ({"action_units": [1], "thresholds": [1.5]}, "probabilities from 0 to 1"),
        ({"image_size": 0}, "`image_size` must be at least 1"),
        ({"label_smoothing": 1.0}, r"must lie in \[0, 1\)"),
        ({"triplet_margins": [0.1]}, "3 margins"),
        ({"temperature": 0.0}, "`temperature` must be at least 0.001, got 0.0"),
        ({"intensity_weight": -1.0}, "`intensity_weight` must be at least 0"),
        (
            {"mask_region_weight": 1.0},
            "`mask_region_weight` needs `head='lam'` and `mask_regions` with a box for each AU",
        ),
        ({"action_units": [1], "mask_regions": [[], []]}, r"`mask_regions` must have one value per action unit \(1\)"),
        ({"crop_template": [[0.5, 0.5]]}, "5 points of 2 fractions"),
    ],
)
def test_a_wrong_setting_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeaauConfig(**arguments)


def test_a_file_of_another_version_loads_but_a_misspelt_one_does_not(tmp_path):
    GeaauConfig(action_units=[6, 12]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "use_cache": False, "zzz_of_the_future": 1}))
    assert GeaauConfig.from_pretrained(tmp_path).action_units == [6, 12]
    path.write_text(json.dumps({**content, "thresholdss": [0.1, 0.2]}))
    with pytest.raises(ValueError, match="Did you mean 'thresholds'"):
        GeaauConfig.from_pretrained(tmp_path)


def test_a_wrong_type_is_named():
    with pytest.raises(StrictDataclassFieldValidationError, match="image_size"):
        GeaauConfig(image_size="224")


def test_labels_that_name_action_units_set_them():
    config = GeaauConfig(id2label={1: "AU25", 0: "AU12"})
    assert config.action_units == [12, 25]
    config.id2label = {0: "AU04"}
    assert (config.action_units, config.label2id, config.thresholds) == ([4], {"AU04": 0}, [0.5])
    with pytest.raises(ValueError, match=r"`num_labels` follows from `action_units` \(AU04\), got 3"):
        config.num_labels = 3
    with pytest.raises(ValueError, match="must name action units, such as AU12, got 'smile'"):
        config.id2label = {0: "smile"}
    assert config.action_units == [4]
