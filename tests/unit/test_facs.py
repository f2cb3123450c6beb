"""The table of action units and the conversions between AU lists."""

import numpy as np
import pytest

from hf_geaau import facs


def test_the_table_holds_the_action_units_and_descriptors_of_the_face():
    wanted = [*range(1, 3), *range(4, 40), 43, 45, 46]  # FACS 2002 has no 3, and 40 to 42 are no longer units
    assert list(facs.ACTION_UNITS) == wanted
    descriptors = [number for number, unit in facs.ACTION_UNITS.items() if not unit.muscle]
    assert descriptors == [19, 29, 30, 32, 33, 34, 35, 36, 37]
    for number, unit in facs.ACTION_UNITS.items():
        assert unit.label == f"AU{number:02d}"
        assert unit.name
        assert unit.region in {"brow", "eye", "cheek", "nose", "mouth", "chin"}


def test_the_orders_are_those_of_the_benchmarks():
    assert facs.numbers("bp4d") == (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    assert facs.numbers("bp4d_plus") == facs.numbers("bp4d")
    assert facs.numbers("disfa") == (1, 2, 4, 6, 9, 12, 25, 26)
    assert facs.numbers("disfa_12") == (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


@pytest.mark.parametrize("source", facs.ORDERS)
@pytest.mark.parametrize("target", facs.ORDERS)
def test_index_maps_carry_every_shared_unit_between_any_two_lists(source, target):
    values = np.array(facs.numbers(source))
    moved = facs.remap(values, source, target)
    for number, value in zip(facs.numbers(target), moved, strict=True):
        assert value == (number if number in facs.numbers(source) else -1)


def test_labels_and_numbers_convert_into_each_other():
    assert facs.numbers(facs.labels("bp4d")) == facs.numbers("bp4d")


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("bp5d", "one of bp4d, bp4d_plus"),
        ([1, 3], "got 1, 3"),
        (["AU01", 1], "must be distinct"),
        (["smile"], "a label such as 'AU06', got 'smile'"),
    ],
)
def test_an_unknown_list_is_refused(units, message):
    with pytest.raises(ValueError, match=message):
        facs.numbers(units)


def test_a_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"last axis of `values` must have 2 AUs \(AU01, AU02\), got \(3,\)"):
        facs.remap([1, 0, 1], [1, 2], [2, 1])


def test_every_action_unit_has_a_region_inside_the_crop():
    for number in facs.ACTION_UNITS:
        boxes = facs.regions([number])[0]
        assert boxes
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
        if len(boxes) == 2:  # left and right mirror each other, and do not overlap
            (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes
            assert (c0, d0, c1, d1) == pytest.approx((1 - a1, b0, 1 - a0, b1))
            assert a1 <= c0
