"""Files with the first names of ResNet's layers, against the models that they were written by."""

import h5py
import keras
import numpy as np
import pytest
from errors import one_line_error
from keras import layers

import keras_resnet
from keras_resnet.pretrained import load

COUNTS, FILTERS, CLASSES = (2, 3), (4, 8), 5
SIZE = (32, 32, 3)


@keras.saving.register_keras_serializable("test_first_names")
class Scale(layers.Layer):
    """Caffe's Scale, as the conversions to Keras have it."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], name="gamma")
        self.beta = self.add_weight(shape=shape[-1:], name="beta")

    def call(self, x):
        return x * self.gamma + self.beta


def early_resnet(*, top=True, scales=False, letters="abcdef"):
    """The models of keras.applications until 2019; with scales, as converted from Caffe."""

    def convolution(x, suffix, filters, size, strides=1, stem=False):
        name, norm = ("conv1", "bn_conv1") if stem else (f"res{suffix}", f"bn{suffix}")
        x = layers.Conv2D(
            *(filters, size, strides),
            padding="same" if size == 3 else "valid",
            use_bias=not scales,
            name=name,
        )(x)
        epsilon = 1.1e-5 if scales else 1e-3
        x = layers.BatchNormalization(epsilon=epsilon, name=norm)(x)
        return Scale(name=norm.replace("bn", "scale"))(x) if scales else x

    images = keras.Input(SIZE)
    x = layers.ZeroPadding2D(3)(images)
    x = layers.ReLU()(convolution(x, "", FILTERS[0], 7, 2, stem=True))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, (count, filters) in enumerate(zip(COUNTS, FILTERS, strict=True), start=2):
        for block in range(count):
            name = f"{stage}{letters[block] if isinstance(letters, str) else letters(block)}"
            strides = 2 if block == 0 and stage > 2 else 1
            y = layers.ReLU()(convolution(x, f"{name}_branch2a", filters, 1, strides))
            y = layers.ReLU()(convolution(y, f"{name}_branch2b", filters, 3))
            y = convolution(y, f"{name}_branch2c", 4 * filters, 1)
            if block == 0:
                x = convolution(x, f"{name}_branch1", 4 * filters, 1, strides)
            x = layers.ReLU()(layers.add([x, y]))
    if top:
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(CLASSES, name="fc1000")(x)
    model = keras.Model(images, x)
    draw = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.path:
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(draw.normal(0, np.sqrt(2 / fan_in), weight.shape))
        elif "variance" in weight.path:  # so small that epsilon shows
            weight.assign(draw.uniform(1e-3, 0.1, weight.shape))
        else:
            weight.assign(draw.uniform(0.2, 0.8, weight.shape))
    return model


KERAS_1 = {
    "kernel": "W",
    "bias": "b",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}


def write(path, model, *, keras_1=False, others=()):
    """Write weights as Keras 1 or 2 did."""
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            group = file.create_group(layer.name)
            for variable in layer.weights:
                name = f"{layer.name}/{variable.name}:0"
                if keras_1:
                    name = f"{layer.name}_{KERAS_1.get(variable.name, variable.name)}:0"
                group[name] = np.asarray(variable)
        for name in others:
            file[name] = np.ones((1, 1, 2, 2), "float32")
    return path


def ours(path, **options):
    return keras_resnet.ResNet(
        *(COUNTS, "bottleneck", FILTERS),
        weights=path,
        **{"input_shape": SIZE, "classes": CLASSES, "classifier_activation": None, **options},
    )


def images():
    return np.random.default_rng(1).normal(0, 50, (4, *SIZE)).astype("float32")


def assert_close(ours, theirs):
    """Compare answers with the largest of them."""
    theirs = np.asarray(theirs)
    assert np.std(theirs) > 0.1 * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def caffe_block(index):
    """The blocks of Caffe's larger models: a, b1, b2, ..."""
    return f"b{index}" if index else "a"


class TestAnswers:
    @pytest.mark.parametrize("keras_1", [True, False], ids=["Keras 1", "Keras 2"])
    @pytest.mark.parametrize("top", [True, False], ids=["top", "notop"])
    def test_are_those_of_early_keras(self, tmp_path, keras_1, top):
        theirs = early_resnet(top=top)
        path = write(tmp_path / "early.h5", theirs, keras_1=keras_1)
        model = ours(path, include_top=top)
        assert model.preprocessing == "caffe"
        assert_close(model(images()), theirs(images()))

    def test_are_those_of_caffe_s_layers_with_scales(self, tmp_path):
        theirs = early_resnet(scales=True, letters=caffe_block)
        model = ours(write(tmp_path / "caffe.h5", theirs))
        assert_close(model(images()), theirs(images()))

    def test_of_a_mask_r_cnn_are_those_of_its_backbone_for_rgb(self, tmp_path, caplog):
        # Matterport's takes RGB, less the means, where the other files are for BGR.
        theirs = early_resnet(top=False)
        others = ("fpn_c5p5/fpn_c5p5/kernel:0", "rpn_model/rpn_conv_shared/kernel:0")
        path = write(tmp_path / "mask_rcnn_coco.h5", theirs, others=others)
        with caplog.at_level("INFO", logger="keras_resnet"):
            model = ours(path, include_top=False)
        rgb = images()
        assert_close(model(rgb[..., ::-1]), theirs(rgb))
        assert "set aside 2 other tensors" in caplog.text
        assert "fpn_c5p5" in caplog.text

    def test_of_a_file_with_the_name_of_today_s_are_the_same(self, tmp_path):
        # The name of the file has stayed, its contents have not.
        name = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
        theirs = early_resnet()
        path = write(tmp_path / name, theirs)
        assert_close(ours(path)(images()), theirs(images()))


class TestFiles:
    def test_tell_the_classes_and_what_a_model_needs(self, tmp_path):
        source = load.find(write(tmp_path / "early.h5", early_resnet()))
        assert source.options == {"stride_in": "1x1", "preprocessing": "caffe"}
        assert load.class_names(source) == [str(index) for index in range(CLASSES)]
        with one_line_error("stride_in='1x1'"):
            ours(tmp_path / "early.h5", stride_in="3x3")

    def test_of_other_classes_are_refused_or_get_a_new_head(self, tmp_path):
        path = write(tmp_path / "early.h5", early_resnet())
        with one_line_error("the head has 5 classes"):
            ours(path, classes=1000)
        assert ours(path, classes=3).output_shape == (None, 3)

    def test_without_a_tensor_are_refused(self, tmp_path):
        theirs = early_resnet()
        path = write(tmp_path / "early.h5", theirs, keras_1=True)
        with h5py.File(path, "a") as file:
            del file["bn3b_branch2b/bn3b_branch2b_running_std:0"]
        with one_line_error("missing", "conv3_block2_2_bn/moving_variance"):
            ours(path)

    def test_of_misshapen_tensors_are_refused(self, tmp_path):
        path = write(tmp_path / "early.h5", early_resnet())
        with h5py.File(path, "a") as file:
            del file["bn_conv1/bn_conv1/moving_variance:0"]
            file["bn_conv1/bn_conv1/moving_variance:0"] = np.ones((4, 1), "float32")
        with one_line_error("conv1_bn/moving_variance", "(4, 1)"):
            ours(path)
