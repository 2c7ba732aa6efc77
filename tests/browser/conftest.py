"""A real JupyterLab in a real Chromium, started once for all browser tests.

Nothing outside the machine is asked, and nothing of the user's own Jupyter settings is read or written. Set
DPNB_SCREENSHOTS to a folder to keep the pictures that the tests take.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "dpnb-browser-test"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_SECONDS = 180.0
# Long enough for a machine that is several times slower than a developer's; what is waited for ends a wait.
PATIENCE_SECONDS = 60.0
TEST_SECONDS = 600
QUIET_LAB = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Light", "adaptive-theme": False},
}
# Said by JupyterLab and Chromium themselves; everything else on the console fails a test.
FOREIGN_ERRORS = ("favicon", "/api/me", "ResizeObserver", "net::ERR_", "Failed to load resource", "lsp", "WebSocket")

# A race of ipywidgets' own (8.1, BoxView.update_children): once all views of a box's children are made, it posts each
# of them a resize; where the box was removed meanwhile (a cell that runs again, a figure replaced), that finds a
# widget without its view. Nothing is lost but the message. On a slow machine it comes in dozens.
UPSTREAM_RACE = "TypeError: Cannot read properties of null (reading 'processLuminoMessage')"
UPSTREAM_PLACE = "/@jupyter-widgets/jupyterlab-manager/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a browser; say so, and say why it is skipped."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.flaky(reruns=1))  # shown as R, and by name in the summary
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on PATH: apt-get install chromium"))


@dataclass
class Lab:
    """A running server."""

    url: str
    root: Path

    def address(self, notebook: str) -> str:
        return f"{self.url}/lab/tree/{notebook}?token={TOKEN}&reset"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab of its own: own settings, own data, own working directory."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "work"
    for folder in ("work", "config/labconfig", "data", "runtime", "ipython"):
        (home / folder).mkdir(parents=True)
    (home / "config/labconfig/default_setting_overrides.json").write_text(json.dumps(QUIET_LAB))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(REPOSITORY),
    }
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    argv += [
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=root)
        try:
            _wait_for_server(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, home / "server.log")
            yield Lab(f"http://127.0.0.1:{port}", root)
        finally:
            server.terminate()
            server.wait(20)


def _wait_for_server(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


# What widgets have sent and the kernel has not dealt with yet.
UNANSWERED = """() => [...jupyterapp.shell.currentWidget.sessionContext.session.kernel._futures.values()]
  .filter(future => future.msg.header.msg_type === 'comm_msg').length"""


@dataclass
class Notebook:
    """One notebook in one browser page, driven as a person would."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def run_all(self, timeout_seconds: float = 5 * PATIENCE_SECONDS) -> None:
        """Run > Run All Cells, and wait until the last one has run and the kernel is idle again."""
        self._start("notebook:run-all-cells")
        self._wait_for_end("the cells did not run", timeout_seconds)

    def run_cell(self, position: int, timeout_seconds: float | None = 2 * PATIENCE_SECONDS) -> None:
        """Run one cell; with no timeout, do not wait for its end."""
        self.page.evaluate("p => { jupyterapp.shell.currentWidget.content.activeCellIndex = p }", position)
        self._start("notebook:run-cell")
        if timeout_seconds is None:
            return
        self._wait_for_end("the cell did not run", timeout_seconds)
        if self.execution_counts()[position] is None:  # a command that comes too early is silently lost
            self.page.wait_for_timeout(5000)
            self._start("notebook:run-cell")
            self._wait_for_end("the cell did not run", timeout_seconds)
        assert self.execution_counts()[position] is not None, "there was no kernel to run the cell"

    def _start(self, command: str) -> None:
        self.page.evaluate(
            """command => {
              window.dpnbRan = false;
              jupyterapp.commands.execute(command).then(() => { window.dpnbRan = true; });
            }""",
            command,
        )

    def _wait_for_end(self, failure: str, timeout_seconds: float) -> None:
        # JupyterLab's own word. A kernel is idle before it begins, and the number that a cell ran as says nothing:
        # after a restart it is 1 again.
        self.until(lambda: self.page.evaluate("() => window.dpnbRan"), failure, timeout_seconds)
        self.wait_idle(timeout_seconds)

    def wait_ready(self) -> None:
        """Wait until cells can be run; the kernel is idle before the notebook listens."""
        self.wait_idle(2 * PATIENCE_SECONDS)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.sessionContext.isReady", timeout=START_SECONDS * 1000
        )
        self.page.wait_for_timeout(1500)

    def settle(self) -> None:
        """Wait until the kernel has dealt with all that a person has done."""
        self.until(lambda: not self.page.evaluate(UNANSWERED), "the kernel does not answer", every_ms=50)

    def wait_idle(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        self.wait_status("idle", timeout_seconds)

    def wait_status(self, status: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the kernel is "idle" or "busy", as JupyterLab shows it."""
        self.page.wait_for_selector(
            f'.jp-Notebook-ExecutionIndicator[data-status="{status}"]',
            state="attached",
            timeout=timeout_seconds * 1000,
        )

    def until(
        self, holds: Callable[[], object], failure: str, timeout_seconds: float = PATIENCE_SECONDS, every_ms: int = 200
    ) -> None:
        """Wait until the page shows what it should; `failure` says what was not to be seen in time."""
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            assert time.monotonic() < deadline, failure
            self.page.wait_for_timeout(every_ms)

    def at_rest(self, read: Callable[[], Any]) -> Any:
        """What `read` gives once it has given the same for a while."""
        seen: list[Any] = []

        def same() -> bool:
            seen.append(read())
            return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

        self.until(same, "it does not come to rest", every_ms=700)
        return seen[-1]

    def execution_counts(self) -> list[int | None]:
        """Of each code cell, the number that it ran as."""
        return self.page.evaluate(
            """() => Array.from(jupyterapp.shell.currentWidget.content.model.cells)
                 .filter(cell => cell.type === 'code').map(cell => cell.executionCount)"""
        )

    def tracebacks(self) -> list[str]:
        """The errors that cells ended with."""
        selector = ".jp-RenderedText[data-mime-type*='stderr'], .jp-RenderedText[data-mime-type*='error']"
        return [text for text in self.page.locator(selector).all_inner_texts() if "Error" in text]

    def set_theme(self, name: str) -> None:
        def shown() -> bool:
            return bool(self.page.evaluate("() => document.body.dataset.jpThemeName") == name)

        if shown():
            return
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
        self.until(shown, "no other theme")
        self.page.wait_for_timeout(1500)  # the new style sheet is drawn

    def our_errors(self) -> list[str]:
        """What the console says of us: every error but those that are known to be of others."""
        return [
            text for text in self.errors if not _is_upstream_race(text) and not any(k in text for k in FOREIGN_ERRORS)
        ]

    def screenshot(self, name: str, selector: str | None = None) -> None:
        """Keep a picture of the page, or of the first element that a selector finds."""
        folder = os.environ.get("DPNB_SCREENSHOTS")
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        target = Path(folder) / f"{name}.png"
        if selector is None:
            self.page.screenshot(path=target)
        else:
            # JupyterLab scrolls inside the page: an element is seen whole only where the page is taller than it.
            before = self.page.viewport_size
            self.page.set_viewport_size({"width": before["width"], "height": 2600})
            self.page.wait_for_timeout(800)
            self.page.locator(selector).first.screenshot(path=target)
            self.page.set_viewport_size(before)


def _is_upstream_race(text: str) -> bool:
    """The first line says what, the first frame of the stack where."""
    what, _, stack = text.partition("\n")
    return what == UPSTREAM_RACE and UPSTREAM_PLACE in stack.partition("\n")[0]


@pytest.fixture
def open_notebook(lab: Lab, chromium: Any) -> Iterator[Any]:
    """A function that puts a notebook before a person: `open_notebook(path or list of cells, width_px=...)`."""
    pages = []

    def opened(what: Path | list[str], *, width_px: int = 1280, height_px: int = 1000) -> Notebook:
        name = what.name if isinstance(what, Path) else f"test-{len(pages)}.ipynb"
        target = lab.root / name
        if isinstance(what, Path):
            shutil.copy(what, target)
        else:
            cells = [nbformat.v4.new_code_cell(source) for source in what]
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), target)
        page = chromium.new_page(viewport={"width": width_px, "height": height_px})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        pages.append(page)
        notebook = Notebook(page)
        page.on("console", lambda message: notebook.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: notebook.errors.append(str(error)))
        page.goto(lab.address(name))
        notebook.wait_ready()
        page.evaluate(
            "() => jupyterapp.shell.leftCollapsed || jupyterapp.commands.execute('application:toggle-left-area')"
        )
        notebook.set_theme("JupyterLab Light")
        return notebook

    yield opened
    for page in pages:
        if folder := os.environ.get("DPNB_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "last.png")  # what there was to see when a test failed
        page.close()
    end_kernels(lab)
    for left in lab.root.iterdir():  # runs and files that the next test would find
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def end_kernels(lab: Lab) -> None:
    """End the kernel of every notebook: the next one of the same name would find what this one has left."""
    headers = {"Authorization": f"token {TOKEN}"}
    sessions = f"{lab.url}/api/sessions"
    with urlopen(Request(sessions, headers=headers), timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - our own server
        found = json.load(answer)
    for session in found:
        ending = Request(f"{sessions}/{session['id']}", headers=headers, method="DELETE")  # noqa: S310
        urlopen(ending, timeout=PATIENCE_SECONDS).close()  # noqa: S310


@pytest.fixture
def growing_run_script() -> Path:
    """The script that writes a run directory as a trainer does."""
    return Path(__file__).with_name("growing_run.py")
