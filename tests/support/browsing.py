"""Pages as a browser shows them, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

_MEASURED = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<script>
onload = () => {{
  const widths = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument.documentElement;
    return [frame.clientWidth, page.scrollWidth, page.scrollHeight];
  }});
  document.body.innerHTML = "<pre>" + JSON.stringify(widths) + "</pre>";
}};
</script></body>"""


def measured(page, widths, folder):
    """How wide and high a page is in windows of some widths, and what the browser complains of."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:600px" srcdoc="{html.escape(page)}">'
        "</iframe>"
        for width in widths
    )
    file = folder / "frames.html"
    file.write_text(_MEASURED.format(frames=frames), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    process = subprocess.run(
        [browser, *options, "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(re.search(r"<pre>(.*?)</pre>", process.stdout)[1])
    return found, [line for line in process.stderr.splitlines() if "CONSOLE" in line]
