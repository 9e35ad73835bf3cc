"""Receptive fields beside what changes when one pixel does, and beside published numbers."""

import keras
import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_resnet
from keras_resnet import zoo
from keras_resnet.analysis import receptive_fields
from keras_resnet.layers import BlurPool2D, GroupedConv2D, ZeroPaddedShortcut

SIDES = (48, 41)


def positive(model):
    """The model with weights that let every pixel through: nothing cancels, no unit is dead."""
    for weight in model.weights:
        if weight.name.endswith("kernel"):
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(np.full(weight.shape, 1 / fan_in))
    return model


def lit(model, axis, places, ground=0):
    """Which outputs change, along an axis, if all pixels of one row or column are brighter."""
    shape = model.input_shape[1:]
    images = np.full((1 + len(places), *shape), ground, "float32")
    for image, place in zip(images[1:], places, strict=True):
        np.moveaxis(image, axis, 0)[place] += 1
    outputs = np.asarray(model(images))
    changes = np.moveaxis(outputs[1:] != outputs[0], 1 + axis, 1)
    return changes.reshape(len(places), changes.shape[1], -1).any(-1)


def check(model, margin=0):
    """Compare the last layer's field with what changes, and say how many outputs were compared."""
    positive(model)
    field, compared = receptive_fields(model)[-1], 0
    assert field.output_shape == model.output_shape[1:-1]
    for axis, size in enumerate(model.input_shape[1:-1]):
        changes, window = lit(model, axis, range(size)), field.windows[axis]
        for output, seen in enumerate(changes.T):
            first, last = window(output)
            rows = np.flatnonzero(seen)
            assert rows.size == 0 or first <= rows[0] <= rows[-1] <= last
            # At the border, what the padding of inner maps hides is not seen.
            if first - margin >= 0 and last + margin < size:
                assert (rows[0], rows[-1]) == (first, last)
                compared += 1
    return compared


def net(*steps):
    """A model of layers one after the other."""
    inputs = x = keras.Input((*SIDES, 2))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def conv(*arguments, **options):
    return layers.Conv2D(2, *arguments, **options)


def two_paths(x):
    straight = conv(1, strides=2)(x)
    around = conv(3, strides=2, padding="same")(conv(5, padding="same")(x))
    return layers.Concatenate()([layers.Add()([straight, around]), around])


def attention(x):
    weights = layers.Dense(2, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, weights])


def nested(x):
    inner = keras.Input((*x.shape[1:3], 2))
    model = keras.Model(inner, conv(3, strides=2)(conv(3)(inner)))
    sequential = keras.Sequential([keras.Input(model.output_shape[1:]), conv(3)])
    return sequential(model(x))


NETS = {
    "kernels and strides that differ": [conv((3, 5), strides=(2, 1)), conv((2, 4))],
    "dilated": [conv(3, dilation_rate=(2, 3)), conv(3, strides=2), conv(3, dilation_rate=2)],
    "grouped": [
        GroupedConv2D(4, 3, strides=2, padding=1, groups=2),
        GroupedConv2D(4, 3, padding=((2, 0), (0, 1)), groups=2),
    ],
    "depthwise": [layers.DepthwiseConv2D(3, strides=2, padding="same"), conv(3)],
    "separable": [conv(2), layers.SeparableConv2D(2, 5, strides=3, padding="same")],
    "transposed": [conv(3, strides=2), layers.Conv2DTranspose(2, 3, strides=2), conv(3)],
    "transposed, same": [
        conv(4, strides=3),
        layers.Conv2DTranspose(2, (5, 3), strides=(2, 3), padding="same"),
        conv(2),
    ],
    "pooling": [
        layers.MaxPooling2D(3, strides=2, padding="same"),
        layers.AveragePooling2D((2, 3)),
        layers.MaxPooling2D(2, strides=1),
    ],
    "padding and cropping": [
        layers.ZeroPadding2D(((3, 1), (0, 2))),
        conv(4, strides=2),
        layers.Cropping2D(((1, 0), (2, 3))),
    ],
    "nearest": [conv(3, strides=2), layers.UpSampling2D((2, 3)), conv(3), conv(2, strides=2)],
    "bilinear": [
        layers.AveragePooling2D(2),
        layers.UpSampling2D((2, 3), interpolation="bilinear"),
        conv((1, 2)),
    ],
    "two paths": [two_paths, conv(3)],
    "blur": [conv(3), BlurPool2D(2), conv(3), BlurPool2D(1)],
    "shortcut of kind A": [ZeroPaddedShortcut(4, strides=2), conv(3)],
    "models in models": [nested, layers.BatchNormalization(), layers.ReLU()],
    "functions": [lambda x: keras.ops.relu(conv(3)(x)) + conv(3, padding="valid")(x)],
}


@pytest.mark.parametrize("steps", NETS.values(), ids=NETS)
def test_are_what_changes_with_a_pixel(steps):
    assert check(net(*steps), margin=4) > 10


EVERYTHING = {
    "global pooling": [layers.GlobalMaxPooling2D(keepdims=True)],
    "channel attention": [conv(3), attention, conv(3)],
    "normalization of groups": [conv(3), layers.GroupNormalization(1), conv(3)],
    "normalization of a map": [layers.LayerNormalization(axis=(1, 2, 3)), conv(3)],
}


@pytest.mark.parametrize("steps", EVERYTHING.values(), ids=EVERYTHING)
def test_are_everything_behind_what_mixes_all_places(steps):
    model = positive(net(*steps))
    for axis, size in enumerate(SIDES):
        assert lit(model, axis, range(size), ground=1).all()
    last = receptive_fields(model)[-1]
    assert last.size == last.stride == last.offset == last.centre == (None, None)
    assert last.region(0, 0) == (None, None)


def test_axes_are_told_apart():
    model = net(conv(3), layers.Softmax(axis=1), conv(3))
    assert receptive_fields(model)[-1].size == (None, 5)


STEP = st.tuples(
    st.integers(1, 4),  # kernel
    st.integers(1, 3),  # stride
    st.integers(1, 3),  # dilation
    st.sampled_from(["same", "valid", "pooling"]),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=3), st.integers(60, 70))
def test_of_any_convolutions_are_what_changes(steps, size):
    inputs = x = keras.Input((size, 1))
    for kernel, stride, dilation, kind in steps:
        if kind == "pooling":
            x = layers.MaxPooling1D(kernel, strides=stride, padding="same")(x)
        else:
            dilation = 1 if stride > 1 else dilation
            options = {"strides": stride, "dilation_rate": dilation}
            x = layers.Conv1D(1, kernel, padding=kind, **options)(x)
    model = positive(keras.Model(inputs, x))
    field = receptive_fields(model)[-1]
    assert field.stride == (np.prod([stride for _, stride, _, _ in steps]),)
    rows = [np.flatnonzero(seen) for seen in lit(model, 0, range(size)).T]
    regions = [field.region(output)[0] for output in range(len(rows))]
    middle = len(rows) // 2
    if regions[middle][0] >= 0 and regions[middle][1] < size:
        assert (rows[middle][0], rows[middle][-1]) == regions[middle]
    for (first, last), seen in zip(regions, rows, strict=True):
        assert seen.size == 0 or first <= seen[0] <= seen[-1] <= last


# Behind the stem and each stage, as others have counted them, with the stride in the 3x3
# convolution (gist.github.com/samson-wang/a6073c18f2adf16e0ab5fb95b53db3e6).
PUBLISHED = {
    "ResNet18": (7, 43, 99, 211, 435),
    "ResNet34": (7, 59, 179, 547, 899),
    "ResNet50": (7, 35, 91, 267, 427),
    "ResNet101": (7, 35, 91, 811, 971),
}


def thin(name, size, **options):
    """A model of the same geometry with few channels."""
    architecture = zoo.architecture(name)
    return keras_resnet.ResNet(
        *(architecture.block_counts, architecture.block, (4, 4, 4, 4)),
        input_shape=size,
        include_top=False,
        **options,
    )


def ends(model):
    """The field at the end of each stage, by its name."""
    return {each.name.partition("_")[0]: each for each in receptive_fields(model)}


@pytest.mark.parametrize(
    "name",
    [*("ResNet18", "ResNet34", "ResNet50"), pytest.param("ResNet101", marks=pytest.mark.slow)],
)
def test_of_resnets_are_the_published_ones(name):
    fields = ends(thin(name, (224, 224, 3)))
    sizes = [fields[f"conv{stage}"].size[0] for stage in range(1, 6)]
    assert sizes == [*PUBLISHED[name]]
    assert fields["conv5"].stride == (32, 32)


# Araujo et al. 2019: with the stride in a 1x1 convolution.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ResNet50", 483),
        pytest.param("ResNet101", 1027, marks=pytest.mark.slow),
        pytest.param("ResNet152", 1507, marks=pytest.mark.slow),
    ],
)
def test_of_the_first_resnets_are_those_of_araujo(name, size):
    assert ends(thin(name, (64, 64, 3), stride_in="1x1"))["conv5"].size == (size, size)


def test_of_vgg16_are_those_of_araujo():
    inputs = x = keras.Input((64, 64, 3))
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            x = conv(3, padding="same")(x)
        x = layers.MaxPooling2D(2)(x)
    assert receptive_fields(keras.Model(inputs, x))[-1].size == (212, 212)


def edges(model):
    """Which of the rows around the two ends of its field the middle output sees."""
    (window, _) = receptive_fields(model)[-1].windows
    middle = model.output_shape[1] // 2
    first, last = window(middle)
    assert 0 < first < last < model.input_shape[1] - 1
    return lit(model, 0, [first - 1, first, last, last + 1])[:, middle].tolist()


@pytest.mark.parametrize(
    ("name", "rows", "stride_in", "size"),
    [
        ("ResNet50", 1000, "3x3", 427),
        pytest.param("ResNet50", 1000, "1x1", 483, marks=pytest.mark.slow),
        pytest.param("ResNet101", 2200, "1x1", 1027, marks=pytest.mark.slow),
    ],
)
def test_of_resnets_end_where_nothing_changes_any_more(name, rows, stride_in, size):
    model = positive(thin(name, (rows, 32, 3), stride_in=stride_in))
    assert receptive_fields(model)[-1].size[0] == size
    assert edges(model) == [False, True, True, False]


@pytest.mark.parametrize(
    "model",
    [
        lambda: keras_resnet.CIFARResNet(20, input_shape=(200, 8, 3), include_top=False),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                lambda: keras_resnet.CIFARResNetV2(20, input_shape=(200, 8, 3), include_top=False),
                lambda: thin(
                    *("ResNet50", (900, 32, 3)), anti_aliasing="blur", shortcut="D", stem="deep"
                ),
                lambda: thin("ResNet50", (1600, 32, 3), output_stride=8),
            )
        ),
    ],
    ids=["CIFAR", "second CIFAR", "blur", "dilated"],
)
def test_of_others_end_where_nothing_changes_any_more(model):
    assert edges(positive(model())) == [False, True, True, False]


def test_places_are_those_of_the_pixels():
    first = receptive_fields(net(conv(5, strides=2, padding="same")))[-1]
    # Of 48 rows, "same" pads one above and two below; of 41 columns, two and two.
    assert (first.offset, first.centre) == ((-1, -2), (1, 0))
    assert first.region(3, 4) == ((5, 9), (6, 10))
    assert (first.size, first.stride, first.output_shape) == ((5, 5), (2, 2), (24, 21))
    up = receptive_fields(net(layers.UpSampling2D(2), conv(2)))[-1]
    assert (up.stride, up.size) == ((0.5, 0.5), (2, 2))
    assert [up.region(row, 0)[0] for row in range(3)] == [(0, 0), (0, 1), (1, 1)]


def test_of_an_unknown_image_size_are_known():
    model = keras_resnet.ResNet18(weights=None, include_top=False, input_shape=(None, None, 3))
    last = receptive_fields(model)[-1]
    assert (last.size, last.output_shape) == ((435, 435), (None, None))


def test_layers_of_nested_models_are_named():
    names = [each.name for each in receptive_fields(net(layers.ReLU(name="before"), nested))]
    assert names[0] == "before"
    assert all("/" in name for name in names[1:])
    assert len(names) == 4


@pytest.mark.parametrize("axes", [1, 3])
def test_of_other_numbers_of_axes_are_known(axes):
    kinds = (getattr(layers, f"Conv{axes}D"), getattr(layers, f"MaxPooling{axes}D"))
    inputs = keras.Input((16,) * axes + (1,))
    model = keras.Model(inputs, kinds[1](2)(kinds[0](1, 3)(inputs)))
    assert receptive_fields(model)[-1].size == (4,) * axes


def test_of_channels_first_are_known():
    inputs = keras.Input((2, 9, 8))
    x = layers.Conv2D(3, 3, strides=(2, 1), data_format="channels_first")(inputs)
    last = receptive_fields(keras.Model(inputs, layers.ReLU()(x)))[-1]
    assert (last.output_shape, last.stride) == ((4, 6), (2, 1))


def broadcast(x):
    narrow = layers.Conv2D(2, SIDES)(x)
    return layers.Add()([x, narrow])


REFUSED = {
    "the receptive field of Permute is not known": [layers.Permute((2, 1, 3))],
    "the receptive field of Resizing is not known": [layers.Resizing(20, 20)],
    "joins maps of different sizes or strides": [broadcast],
    "'bicubic' is not known": [layers.UpSampling2D(2, interpolation="bicubic")],
    "is below strides": [layers.Conv2DTranspose(2, 1, strides=2)],
    "dilation_rate or output_padding": [layers.Conv2DTranspose(2, 3, dilation_rate=2)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_known_is_refused(message):
    model = net(*REFUSED[message])
    with one_line_error(message):
        receptive_fields(model)


def test_what_has_no_image_is_refused():
    inputs = keras.Input((3,))
    with one_line_error("must begin with one image"):
        receptive_fields(keras.Model(inputs, layers.Dense(2)(inputs)))
    with one_line_error("only a functional model"):
        receptive_fields(keras.Sequential([layers.Dense(2)]))
