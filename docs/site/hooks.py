"""What MkDocs does besides: the API reference, and links to files outside of docs/.

A page may link to any file of the project, as people who read it in the repository expect; the site
carries a copy of each file that is linked to. A link to a folder is that to its README.md, or none.
The notebooks in examples/ become pages.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import notebooks
import reference

ROOT = Path(__file__).parents[2]
COPIES = "project"
CHANGELOG = f"{COPIES}/CHANGELOG.md"
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_config(config):
    """List the pages of the reference and of the experiments in the navigation."""
    folder = Path(config.docs_dir)
    listed = {"reference/*": [*reference.pages()]}
    for pattern in ("experiments/*/report.md", "experiments/*/report.zh.md"):
        listed[pattern] = sorted(
            file.relative_to(folder).as_posix() for file in folder.glob(pattern)
        )
    for entry in config.nav:
        for title, pages in entry.items():
            entry[title] = [page for each in pages for page in listed.get(str(each), [each])]
    return config


@event_priority(100)
def on_files(files, config):
    """Add the pages of the reference, and copies of what pages link to."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    waiting = ["CHANGELOG.md"]
    for file in sorted(ROOT.glob("examples/*.ipynb")):
        text, pictures = notebooks.page(file)
        for name, content in {f"{file.stem}.md": text, **pictures}.items():
            files.append(File.generated(config, f"{COPIES}/examples/{name}", content=content))
        waiting += _linked(f"examples/{file.name}", text)
    for file in [*files]:
        if file.is_documentation_page() and not file.src_uri.startswith("reference/"):
            waiting += _linked(f"docs/{file.src_uri}", file.content_string)
    while waiting:
        path = waiting.pop()
        if path.endswith(".ipynb") or files.get_file_from_path(f"{COPIES}/{path}"):
            continue
        file = ROOT / path
        files.append(File.generated(config, f"{COPIES}/{path}", content=file.read_bytes()))
        if file.suffix == ".md":
            waiting += _linked(path, file.read_text(encoding="utf-8"))
    return files


def on_page_markdown(markdown, page, **_):
    """Point links to where things are on the site."""
    place = page.file.src_uri
    if place.startswith("reference/"):
        return markdown
    copied = place.startswith(f"{COPIES}/")
    path = place.removeprefix(f"{COPIES}/") if copied else f"docs/{place}"

    def link(found):
        bang, text, target, anchor = found.groups(default="")
        aim = _aim(path, target)
        if aim is None:
            return text
        aim = re.sub(r"\.ipynb$", ".md", aim)
        to = aim.removeprefix("docs/") if aim.startswith("docs/") else f"{COPIES}/{aim}"
        return f"{bang}[{text}]({posixpath.relpath(to, posixpath.dirname(place) or '.')}{anchor})"

    return _outside_code(markdown, lambda text: _LINK.sub(link, text))


def _linked(path, text):
    """The files outside of docs/ that a page of the project links to."""
    aims = [_aim(path, target) for _, _, target, _ in _LINK.findall(_CODE.sub("", text))]
    outside = [aim for aim in aims if aim and not aim.startswith("docs/")]
    return [aim for aim in outside if (ROOT / aim).exists()]


def _aim(path, target):
    """The file of the project that a link of a page leads to; None for a folder without a page."""
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if (ROOT / aim).is_dir():
        aim = f"{aim}/README.md"
        return aim if (ROOT / aim).exists() else None
    return aim


def _outside_code(text, change):
    """Change a text, but not its blocks of code."""
    parts, end = [], 0
    for block in _CODE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])
