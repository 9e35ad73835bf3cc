"""What jobs let one choose between, by name, and what they write."""

MODEL_FILE = "model.keras"
"""The trained model in the folder of a run."""

METRICS_FILE = "metrics.json"
"""What was found on the test images, beside it."""

IMAGES_FILE = "images.csv"
"""The images of every split, beside it."""

RUN_FILE = "run.json"
"""The settings of a run, and the command that repeats it."""

ANSWERS_FILE = "answers.npz"
"""The model's answers on the test and validation images."""

PAGE_FILE = "report.html"
"""The page of a run or a search."""

FOLDS_FILE = "folds.json"
"""The settings of a cross-validation, which tell it from others."""

RUN_FILES = (
    RUN_FILE,
    MODEL_FILE,
    "labels.txt",
    "history.csv",
    METRICS_FILE,
    IMAGES_FILE,
    "curves.png",
    "predictions.png",
    "confusion.csv",
    "per_label.csv",
    "residuals.csv",
    "per_class.csv",
    "precision_recall.png",
    "errors.png",
    "detections.json",
    "truths.json",
    ANSWERS_FILE,
    PAGE_FILE,
)
"""All files that training may write into the folder of a run."""

SEARCH_FILES = (PAGE_FILE, "pareto.png", "trials.csv")
"""All files that a search writes into its folder."""

RUN_FOLDERS = ("checkpoints", "logs", "profile")
"""All folders in the folder of a run, but the SavedModel's."""

TASKS = ("classification", "multilabel", "regression", "detection")
"""What models learn."""

RECIPES = ("paper", "modern", "a1", "a2", "a3", "finetune", "detection")
"""How to train: the keys of `training.RECIPES`."""

OPTIMIZERS = ("sgd", "adamw", "lamb")
"""What training steps are taken by: the keys of `training.recipes.OPTIMIZERS`."""

LOSSES = (
    *("cross_entropy", "binary_cross_entropy", "focal", "asymmetric"),
    *("squared_error", "absolute_error", "huber"),
)
"""What training may minimize: the keys of `training.losses.LOSSES`."""

THRESHOLDS = ("f1", "balanced_accuracy")
"""What thresholds of labels may maximize: the keys of `analysis.thresholds.RULES`."""

EXPORTS = {
    "saved_model": ("float32", "bfloat16"),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32",),
    "openvino": ("float32", "bfloat16", "int8"),
}
"""The export formats and the precisions of each; for files, as in `export.formats.FORMATS`."""

RUNTIMES = ("auto", "openvino", "tensorflow", "litert", "onnxruntime")
"""The runtimes of trained models: "auto" and the keys of `export.compiled.RUNTIMES`."""

COMPUTED_IN = ("float32", "bfloat16")
"""The precisions that predictions can be computed in."""
