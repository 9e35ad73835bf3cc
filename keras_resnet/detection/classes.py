"""Class names of published detectors."""

_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "", "backpack"),
    *("umbrella", "", "", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
    *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    *("donut", "cake", "chair", "couch", "potted plant", "bed", "", "dining table", "", ""),
    *("toilet", "", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave"),
    *("oven", "toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors"),
    *("teddy bear", "hair drier", "toothbrush"),
)

COCO_CATEGORIES = dict(enumerate(_NAMES, start=1))
"""The categories of COCO by their number; ten numbers have none, and "" for a name."""

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes of Pascal VOC."""

NO_CLASS = "N/A"
"""What torchvision calls the numbers of COCO that no category has."""


def coco_classes(*, gaps: bool = False) -> list[str]:
    """List the names of COCO's classes, in the order of a detector's outputs.

    Parameters
    ----------
    gaps : bool, default False
        False for the 80 classes, as detectron2 numbers them; True for torchvision's 90, of which
        ten are "N/A": class 0 is category 1 of COCO.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from keras_resnet.detection import coco_classes
    >>> coco_classes()[11], coco_classes(gaps=True)[11:13]
    ('stop sign', ['N/A', 'stop sign'])
    """
    if gaps:
        return [name or NO_CLASS for name in COCO_CATEGORIES.values()]
    return [name for name in COCO_CATEGORIES.values() if name]
