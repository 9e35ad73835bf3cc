"""Pages as a browser shows them, where there is one."""

import html
import json
import re
import shutil
import subprocess

import PIL.Image
import pytest

_FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frames}<script>
onload = () => {{
  const seen = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement, width = frame.clientWidth;
    return {script};
  }});
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(seen);
}};
</script></body>"""
_MEASURES = "[width, root.scrollWidth, root.scrollHeight]"


def browser():
    """The browser; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def _run(folder, *options):
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    return subprocess.run(
        [browser(), *fixed, *options], capture_output=True, text=True, timeout=120, check=True
    )


def examined(page, script, folder, widths=(1440,), dark=False):
    """What an expression of JavaScript finds in a page, in windows of some widths.

    It may use `page` (the document), `root` (its element) and `width`. Also returns what the
    browser complains of.
    """
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:600px" srcdoc="{html.escape(page)}">'
        "</iframe>"
        for width in widths
    )
    file = folder / "frames.html"
    file.write_text(_FRAMES.format(frames=frames, script=script), encoding="utf-8")
    process = _run(folder, *_colours(dark), "--dump-dom", file.as_uri())
    found = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", process.stdout, re.DOTALL)[1]))
    return found, [line for line in process.stderr.splitlines() if "CONSOLE" in line]


def measured(page, widths, folder):
    """How wide and high a page is in windows of some widths, and what the browser complains of."""
    return examined(page, _MEASURES, folder, widths)


def screenshot(page, picture, folder, width=1440, height=None, dark=False, scale=1.0):
    """Write what a window shows of a page, of its whole height unless another is given.

    `scale` makes the picture smaller than the window.
    """
    if height is None:
        ((_, _, height),), _ = measured(page, (width,), folder)
    frame = (
        f'<!DOCTYPE html><body style="margin:0"><iframe style="border:0;width:{width}px;'
        f'height:{height}px" srcdoc="{html.escape(page)}"></iframe></body>'
    )
    file = folder / "frame.html"
    file.write_text(frame, encoding="utf-8")
    size = f"--window-size={max(width, 500)},{height}"  # a window of Chromium is no narrower
    _run(folder, *_colours(dark), size, f"--screenshot={picture}", file.as_uri())
    with PIL.Image.open(picture) as shown:
        size = (round(scale * width), round(scale * height))
        shown.crop((0, 0, width, height)).resize(size).save(picture, optimize=True)


def _colours(dark):
    return [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
