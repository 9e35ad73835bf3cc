import pytest
from errors import one_line_error

from keras_resnet import names

MODELS = ["ResNet50", "ResNeXt50_32x4d", "WideResNet50_2"]


@pytest.mark.parametrize("typed", ["ResNeXt50_32x4d", "resnext50-32x4d", "RESNEXT50 32x4d"])
def test_case_and_separators_do_not_matter(typed):
    assert names.find("model", typed, MODELS) == "ResNeXt50_32x4d"


@pytest.mark.parametrize(
    ("typed", "suggested"), [("resnet5", "ResNet50"), ("wide", "WideResNet50_2"), ("", "ResNet50")]
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_of_them(typed, suggested):
    with one_line_error(f"model {typed!r} is not known", f"Did you mean {suggested}?", *MODELS):
        names.find("model", typed, MODELS)


def test_of_many_names_the_nearest_are_listed():
    many = [f"ResNet{depth}" for depth in range(100, 200)]
    with pytest.raises(ValueError, match="The nearest of 100 are ResNet150, ") as caught:
        names.find("model", "resnet150q", many)
    assert len(str(caught.value)) < 500
