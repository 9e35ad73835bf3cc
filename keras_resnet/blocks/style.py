"""What a residual block is made like: the options that blocks of all kinds share."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from typing_extensions import TypedDict

from keras_resnet.checks import check_choice, check_positive, check_range

Shortcut = Literal["A", "B", "C", "D", None]
StridePlace = Literal["3x3", "1x1"]
StrideBlock = Literal["first", "last"]
Attention = Literal["se", "eca", None]
AntiAliasing = Literal["average", "blur", None]
Norm = Literal["batch", "group"]

SHORTCUTS = get_args(Shortcut)
STRIDE_PLACES = get_args(StridePlace)

_FLAGS = ("zero_init_residual", "weight_standardization", "biases")


class Details(TypedDict, total=False):
    """Fields of `Style` for blocks of all kinds, as keywords."""

    attention: Attention
    attention_ratio: float
    anti_aliasing: AntiAliasing
    norm: Norm
    weight_standardization: bool
    biases: bool
    stride_block: StrideBlock


class PlanDetails(Details, total=False):
    """Those that plans take, too."""

    zero_init_residual: bool


class AllDetails(PlanDetails, total=False):
    """All fields of `Style`, as keywords."""

    shortcut: Shortcut
    stride_in: StridePlace
    cardinality: int
    base_width: int


@dataclass(frozen=True)
class Style:
    """What blocks of one kind may differ in.

    Parameters
    ----------
    shortcut : {"A", "B", "C", "D", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where the shape changes;
        "C": projection always; "D": as "B", with 2x2 average pooling instead of a stride; None: no
        shortcut, a plain block.
    zero_init_residual : bool, default False
        Start every block as its shortcut: with gamma = 0 in its last normalization, or with a last
        kernel of zeros where none follows.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution of a bottleneck block that carries the stride: the 3x3 (PyTorch, "v1.5") or
        the first 1x1 (the paper and keras.applications, "v1").
    cardinality : int, default 1
        Groups of the 3x3 convolution of a bottleneck block.
    base_width : int, default 64
        Channels per group in a stage of 64 filters: 64 for ResNet, 4 for ResNeXt 32x4d, 128 for
        Wide ResNet-2.
    attention : {None, "se", "eca"}, default None
        Channel attention before the sum: squeeze-and-excitation, or efficient channel attention.
    attention_ratio : float, default 1/16
        Channels between the two layers of squeeze-and-excitation, as a fraction of the block's,
        rounded to a multiple of 8.
    anti_aliasing : {None, "average", "blur"}, default None
        Subsampling behind the convolution instead of its stride: 2x2 averages, or a binomial 3x3
        filter.
    norm : {"batch", "group"}, default "batch"
        BatchNormalization, or GroupNormalization with 32 groups.
    weight_standardization : bool, default False
        Whether kernels are standardized, as in Big Transfer.
    biases : bool, default False
        Whether convolutions that no normalization follows have biases, as those of
        keras.applications' V2. For blocks with pre-activation.
    stride_block : {"first", "last"}, default "first"
        The block of a stage that carries its stride: "last" as in keras.applications' V2. For
        blocks with pre-activation.

    Raises
    ------
    ValueError
        For an option out of its range, naming it, what came and what is allowed.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016: shortcuts A to C.
    Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.
    He et al., Bag of Tricks for Image Classification, CVPR 2019: shortcut D.
    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    Wang et al., ECA-Net, CVPR 2020.
    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019: anti-aliasing.
    Wu and He, Group Normalization, ECCV 2018.
    Kolesnikov et al., Big Transfer, ECCV 2020: standardized kernels.

    Examples
    --------
    >>> from keras_resnet.blocks import Style
    >>> Style(shortcut="D", attention="se").attention_ratio
    0.0625
    """

    shortcut: Shortcut = "B"
    zero_init_residual: bool = False
    stride_in: StridePlace = "3x3"
    cardinality: int = 1
    base_width: int = 64
    attention: Attention = None
    attention_ratio: float = 1 / 16
    anti_aliasing: AntiAliasing = None
    norm: Norm = "batch"
    weight_standardization: bool = False
    biases: bool = False
    stride_block: StrideBlock = "first"

    def __post_init__(self):
        check_choice(SHORTCUTS, shortcut=self.shortcut)
        check_choice(STRIDE_PLACES, stride_in=self.stride_in)
        check_choice(get_args(Attention), attention=self.attention)
        check_choice(get_args(AntiAliasing), anti_aliasing=self.anti_aliasing)
        check_choice(get_args(Norm), norm=self.norm)
        check_choice(get_args(StrideBlock), stride_block=self.stride_block)
        check_positive(cardinality=self.cardinality, base_width=self.base_width)
        check_range("positive", attention_ratio=self.attention_ratio)
        # Keras wants Python's own whole numbers, NumPy users have theirs.
        for name in ("cardinality", "base_width"):
            object.__setattr__(self, name, int(getattr(self, name)))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False.")
        check_shortcut(self.shortcut, self.zero_init_residual)
        if self.weight_standardization and self.cardinality > 1:
            raise ValueError(
                f"weight_standardization=True is not for grouped convolutions: cardinality="
                f"{self.cardinality} must be 1."
            )


STYLE = tuple(field.name for field in fields(Style))
"""Names of the options of `Style`."""


def check_shortcut(shortcut: Shortcut, zero_init_residual: bool) -> None:
    """Raise ValueError for an unknown shortcut, or a residual of zeros without one."""
    check_choice(SHORTCUTS, shortcut=shortcut)
    if shortcut is None and zero_init_residual:
        raise ValueError(
            "zero_init_residual=True needs a shortcut: without one, gamma = 0 lets no signal "
            "through. Use shortcut='A', 'B', 'C' or 'D'."
        )
