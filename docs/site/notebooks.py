"""Notebooks as pages of the site: their text, code and outputs."""

import base64
import json
from pathlib import Path


def page(file: Path) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, and its pictures by name."""
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
        source = _text(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else _fenced(source, "python"))
        for index, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{file.stem}_{number}_{index}.png"
                pictures[name] = base64.b64decode(_text(data["image/png"]))
                parts.append(f"![What the code above draws]({name})")
            elif text := _text(output.get("text") or data.get("text/plain", "")):
                parts.append(_fenced(text.rstrip("\n"), "text"))
    return "\n\n".join(parts) + "\n", pictures


def _fenced(text, language):
    return f"```{language}\n{text}\n```"


def _text(lines):
    return lines if isinstance(lines, str) else "".join(lines)
