"""The page of `dvc plots`: what it holds, and that a browser draws all of it without an error.

The page names its libraries on the net; here they come from `.ci/node_modules`, by HTTP.
"""

import functools
import json
import os
import re
import shutil
import threading
import urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from tests.conftest import ROOT, command

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LIBRARIES = ROOT / ".ci/node_modules"
HOSTILE = 'a.b[0]."q" </script><script>document.title=1</script> <DVC_METRIC_X> $y_1$ \\ %'
JOBS = {
    "default": {"train.lr": "0.01"},
    "norris": {
        "prepare.source": "norris.csv", "prepare.dtype": "float64", "prepare.validation": "0",
        "prepare.test": "0",
    },
    "network": {
        "prepare.source": "auto_mpg.csv", "prepare.target": "mpg", "prepare.missing": "drop",
        "train.hidden": "[16]", "train.lr": "0.03",
    },
    "hostile": {
        "prepare.source": "hostile.csv", "prepare.target": f"'{HOSTILE}'",
        "evaluate.plot_rows": "1",
    },
}  # fmt: skip
# Collects errors from the start; at the end says of each picture how many colours it has.
WATCH = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || event.target.src), true);
addEventListener("unhandledrejection", event => errors.push(String(event.reason)));
const original = console.error;
console.error = (...words) => { errors.push(words.join(" ")); original(...words); };
function colours(picture) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
}
addEventListener("load", () => setTimeout(() => {
  const drawn = {};
  for (const picture of document.querySelectorAll("canvas, img"))
    drawn[picture.getAttribute("src") || picture.closest("[id]").id] = colours(picture);
  const result = {errors, drawn, title: document.title};
  document.body.setAttribute("data-result", encodeURIComponent(JSON.stringify(result)));
}, 3000));
</script>"""


@pytest.fixture(scope="module")
def folders(quick, tmp_path_factory):
    """Copies of the project, each after another job."""

    @functools.cache
    def run(job):
        folder = shutil.copytree(quick, tmp_path_factory.mktemp(job) / "copy")
        words = [word for name, value in JOBS[job].items() for word in ("-S", f"{name}={value}")]
        shutil.copy(ROOT / "tests/data/auto_mpg.csv", folder / "data/raw")
        table = pd.DataFrame({"x": range(100), HOSTILE: range(100)})
        table.to_csv(folder / "data/raw/hostile.csv", index=False)
        end = command(folder, "dvc", "exp", "run", *words)
        assert end.returncode == 0, end.stderr
        end = command(folder, "dvc", "plots", "diff")
        assert end.returncode == 0, end.stderr
        assert end.stderr == ""
        return folder

    return run


@pytest.mark.parametrize("job", JOBS)
def test_every_placeholder_of_the_page_is_filled(folders, job):
    page = (folders(job) / "dvc_plots/index.html").read_text()
    for text in ("<DVC_METRIC", "{plot_divs}", "{scripts}"):
        assert text not in page


def test_axes_have_the_names_of_columns(folders):
    page = (folders("default") / "dvc_plots/index.html").read_text()
    for text in ("mean loss", "validation_loss", "least squares", ", actual \\u2212 predicted"):
        assert text in page
    assert {'"x_label": "x"' in page, '"target": "y"' in page} == {True}
    assert (
        '"x_label": "mpg, predicted"' in (folders("network") / "dvc_plots/index.html").read_text()
    )


@pytest.mark.skipif(
    not (CHROMIUM and LIBRARIES.exists()) and "CI" not in os.environ,
    reason="Chromium (Debian: chromium) or npm is not installed",
)
@pytest.mark.parametrize("job", JOBS)
def test_a_browser_draws_every_plot_without_an_error(folders, tmp_path, job):
    folder = shutil.copytree(folders(job) / "dvc_plots", tmp_path / "site")
    (folder / "npm").symlink_to(LIBRARIES)
    page = (folder / "index.html").read_text()
    page, num_libraries = re.subn(
        r"https://cdn\.jsdelivr\.net/npm/([a-z-]+)@([0-9.]+)", local_library, page
    )
    assert num_libraries == 3
    (folder / "index.html").write_text(page.replace("<head>", f"<head>{WATCH}", 1))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        end = command(
            tmp_path, CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=20000", "--dump-dom",
            f"--screenshot={tmp_path}/page.png", "--window-size=900,1700",
            f"http://127.0.0.1:{server.server_port}/index.html",
        )  # fmt: skip
        server.shutdown()
    encoded = re.search(r'data-result="([^"]+)"', end.stdout)
    assert encoded, end.stdout[-2000:] + end.stderr
    result = json.loads(urllib.parse.unquote(encoded[1]))
    assert result["errors"] == []
    assert result["title"] == "Plots", "a name is no program"
    revisions = ("workspace", "HEAD")
    figures = {f"static/{name}_metrics_plots_figure.svg" for name in revisions}
    assert result["drawn"].keys() == {"loss", "fit", "residuals"} | figures
    assert min(result["drawn"].values()) > 10


def local_library(match: re.Match) -> str:
    """The same version of the same library, on this machine."""
    name, version = match.groups()
    assert json.loads((LIBRARIES / name / "package.json").read_text())["version"] == version
    return f"npm/{name}/build/{name}.min.js"
