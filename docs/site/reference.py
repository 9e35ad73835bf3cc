"""Generate the pages of the API reference: a line per public name, and then its docstring."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "keras_resnet"
# Module: what it is for. Those that users import from, in the order of the rooms.
MODULES = {
    "keras_resnet": "The builders and what belongs to them.",
    "keras_resnet.resnet": "The one builder of all models.",
    "keras_resnet.blocks": "Residual blocks.",
    "keras_resnet.layers": "Layers.",
    "keras_resnet.graphs": "What a Keras model is.",
    "keras_resnet.preprocessing": "Images as models want them.",
    "keras_resnet.data": "Images, labels and batches.",
    "keras_resnet.pretrained": "Weights of other people.",
    "keras_resnet.zoo": "The named models.",
    "keras_resnet.training": "Recipes, devices, and the training loop.",
    "keras_resnet.transfer": "Transfer learning.",
    "keras_resnet.analysis": "Models and predictions as numbers and pictures.",
    "keras_resnet.detection": "Faster R-CNN.",
    "keras_resnet.export": "Models that run elsewhere.",
    "keras_resnet.experiments": "The papers' experiments.",
    "keras_resnet.tuning": "Searching for a model.",
    "keras_resnet.runs": "The commands as functions.",
}


def tree_of(module: str) -> tuple[ast.Module, Path]:
    """The syntax tree of a module; of a package, its stub if there is one."""
    path = PACKAGE.parent / module.replace(".", "/")
    for file in (path / "__init__.pyi", path / "__init__.py", path.with_suffix(".py")):
        if file.exists():
            return ast.parse(file.read_text(encoding="utf-8")), file
    raise FileNotFoundError(module)


def public(module: str) -> list[str]:
    """Where the public names of a module are defined."""
    tree, _ = tree_of(module)
    places, own, names = {}, [], None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            base = module if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            places.update(
                {each.asname or each.name: f"{source}.{each.name}" for each in node.names}
            )
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            own.append(node.name)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
    return [places.get(name, f"{module}.{name}") for name in names or own]


def summary(place: str) -> str | None:
    """The first line of the docstring of what is defined somewhere; None for a module."""
    module, _, name = place.rpartition(".")
    try:
        tree, _ = tree_of(module)
    except FileNotFoundError:
        return ""
    for index, node in enumerate(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(getattr(each, "id", "") == name for each in targets):
            after = tree.body[index + 1] if index + 1 < len(tree.body) else None
            text = getattr(getattr(after, "value", None), "value", "")
            return " ".join(str(text).split("\n\n")[0].split()) if isinstance(text, str) else ""
    followed = {
        each.asname or each.name: f"{node.module}.{each.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for each in node.names
    }
    if name in followed and followed[name] != place:
        return summary(followed[name])
    return None


def page(module: str, purpose: str) -> str:
    """The page of a module."""
    rows, details = [], []
    elsewhere = {each for other in MODULES if len(other) > len(module) for each in public(other)}
    for place in public(module):
        line, name = summary(place), place.rpartition(".")[2]
        if line is None:
            continue
        rows.append(f"| [`{name}`][{place}] | {line.replace('|', chr(92) + '|')} |")
        if place not in elsewhere:  # whose page has it
            details.append(f"::: {place}")
    head = [f"# {module}", purpose, "\n".join(["| name | what it is |", "| --- | --- |", *rows])]
    return "\n\n".join([*head, *details]) + "\n"


def pages() -> dict[str, str]:
    """The reference: each page's place on the site, and its text."""
    found = {f"reference/{name(module)}.md": page(module, its) for module, its in MODULES.items()}
    lines = [f"- [`{module}`]({name(module)}.md): {its}" for module, its in MODULES.items()]
    return {"reference/index.md": "\n".join(["# API reference", "", *lines, ""]), **found}


def name(module: str) -> str:
    """What the page of a module is called."""
    return module.rpartition(".")[2]
