"""Basic against bottleneck blocks at equal cost: pairs, arithmetic and page."""

import json

import pytest
from commands import refused, run

import keras_resnet
from keras_resnet import data, experiments
from keras_resnet.analysis import complexity, total
from keras_resnet.experiments import bottleneck

SMALL = {"epochs": 1, "images": 100, "test_images": 100, "depths": (8,), "seeds": 1}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    output = tmp_path_factory.mktemp("bottleneck")
    return experiments.run("bottleneck", output, lambda: data.load("digits"), **SMALL)


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 56])
def test_pairs_are_of_equal_cost(depth):
    costs, counts = [], []
    for kind, options in bottleneck.pair(depth).items():
        model = keras_resnet.CIFARResNet(**options)
        costs.append(total(complexity(model)).macs)
        counts.append(sum(layer.name.endswith("_add") for layer in model.layers))
        assert total(complexity(model)).layers == options["depth"]
        sides = {layer.kernel_size for layer in model.layers if "block2_1_conv" in layer.name}
        assert sides <= {(3, 3)} if kind == "basic" else sides <= {(1, 1)}
    assert counts == [(depth - 2) // 2] * 2
    assert costs[1] == pytest.approx(costs[0], rel=0.03)


def test_the_arithmetic_is_that_of_the_documents(record):
    values = record.values
    assert (values["bottleneck_weights"], values["wide_weights"]) == (69_632, 1_179_648)
    assert f"{values['wide_to_bottleneck']:.2f}" == "16.94"
    assert values["narrow_weights"] == 2 * 9 * 64 * 64
    models = record.results["arithmetic"]["models"]
    for name, (billions, _) in bottleneck.PUBLISHED.items():
        layers, _, macs = models[name]
        assert str(layers) == name.partition("-")[2]
        assert macs / 1e9 == pytest.approx(billions, abs=0.07)
    assert values["resnet34_to_vgg19"] == pytest.approx(3.66 / 19.63, abs=1e-3)


def test_what_was_trained_is_what_is_compared(record):
    (basic, narrow) = (record.results[name] for name in ("basic-8-0", "bottleneck-8-0"))
    assert (basic["layers"], narrow["layers"]) == (8, 11)
    assert record.values["largest_difference_of_cost"] == abs(narrow["macs"] / basic["macs"] - 1)
    assert record.values["largest_difference_of_cost"] < 0.03
    of_8 = bottleneck.pair(8)["bottleneck"]
    layer = keras_resnet.CIFARResNet(**of_8).get_layer("conv2_block1_2_conv")
    assert record.values["narrowest_bottlenecks"][0] == layer.kernel.shape[-1]


@pytest.mark.parametrize(
    ("basic", "narrow", "verdict"),
    [
        ((0.2, 0.21), (0.3, 0.31), "basic"),
        ((0.3, 0.31), (0.2, 0.21), "bottleneck"),
        ((0.2, 0.3), (0.25, 0.35), "alike"),
        ((0.2,), (0.3,), "alike"),
    ],
)
def test_differences_within_their_spread_are_called_so(record, basic, narrow, verdict):
    results = json.loads(json.dumps(record.results))
    for kind, errors in {"basic": basic, "bottleneck": narrow}.items():
        for seed, error in enumerate(errors):
            results[f"{kind}-8-{seed}"] = {**results[f"{kind}-8-0"], "test_error": [error]}
    settings = bottleneck.BottleneckSettings(**{**SMALL, "seeds": len(basic)})
    values = bottleneck._report(settings, results).values
    counts = {word: values[f"{word}_pairs"] for word in ("basic", "bottleneck", "alike")}
    assert counts == {**dict.fromkeys(counts, 0), verdict: 1}


def test_its_page_says_what_was_found(record):
    english = (record.output / "report.md").read_text(encoding="utf-8")
    assert "16.94 times as many" in english
    assert "With one seed, there is no spread" in english
    assert "lower test error" not in english
    assert "16.94 倍" in (record.output / "report.zh.md").read_text(encoding="utf-8")


def test_a_depth_that_does_not_fit_is_refused(tmp_path):
    for setting, complaint in (("depths=[9]", "9"), ("depths=[8,8]", "different depths")):
        result = run(
            *("experiment", "bottleneck", "--data", "digits"),
            *("--set", setting, "--output", tmp_path / "out"),
        )
        assert complaint in refused(result)
