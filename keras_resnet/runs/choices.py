"""What jobs let one choose between, by name."""

MODEL_FILE = "model.keras"
"""The trained model in the folder of a run."""

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""What feature maps are computed in, as Keras calls it."""

TASKS = ("classification", "multilabel", "regression")
"""What models learn."""

EXPORTS = {
    "saved_model": ("float32", "bfloat16"),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32",),
}
"""Formats of exported models, and the precisions of each."""
