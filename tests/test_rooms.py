"""A room of the package imports only from the rooms before it."""

import ast
from pathlib import Path

import keras_resnet

ROOMS = (
    *("files", "names", "checks", "progress", "interrupts", "machine", "optimizers", "launch"),
    *("pages",),
    *("initialization", "layers", "blocks"),
    *("resnet", "graphs", "preprocessing", "data", "pretrained", "zoo", "training", "transfer"),
    *("analysis", "detection", "explain", "export", "experiments", "tuning", "runs", "cli"),
)
PACKAGE = Path(keras_resnet.__file__).parent


def imported(file):
    """The rooms that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_resnet"):
            _, _, path = node.module.partition(".")
            yield from [path.partition(".")[0]] if path else [each.name for each in node.names]


def test_import_only_from_rooms_before_them():
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {other}"
        for room in ROOMS
        for file in [*PACKAGE.glob(f"{room}.py"), *(PACKAGE / room).rglob("*.py")]
        for other in imported(file)
        if other in ROOMS and ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not wrong


def test_are_all_listed():
    there = {path.stem for path in PACKAGE.glob("[!_]*") if path.suffix in ("", ".py")}
    assert there == {*ROOMS}


def test_are_attributes_of_the_package():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - {"cli", "graphs", "pages"} <= {*dir(keras_resnet)}
    assert keras_resnet.experiments.find("gradients").name == "gradients"
