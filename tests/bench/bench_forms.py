"""Forms in a live kernel: building, one edit, one search. The budget is 300 ms to build a form and 50 ms an edit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from timing import show

REPOSITORY = Path(__file__).resolve().parents[2]
SETUP = f"""
import sys, time, statistics
sys.path.insert(0, {str(REPOSITORY)!r})
import dpnb
from tests.dpnb.every_family import FAMILIES, training
from dpnb.schema import Dataset, Directory
from dpnb.widgets.form import Form

def took(work, repeats=7):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)

def build(family):
    dpnb.TrainingForm(training(family=family)).close()

def everything_open():
    form = dpnb.TrainingForm(training())
    form._toggle.value = True
    for page in range(len(form._pages)):
        form._tab.selected_index = page
    return form

numbers = iter(range(1, 10**6))
WORDS = ('learning', 'every n')
build('flux')
"""
ROWS = {
    "build: the quickest of 25 families": "min(took(lambda f=f: build(f), 3) for f in FAMILIES)",
    "build: the slowest of 25 families": "max(took(lambda f=f: build(f), 3) for f in FAMILIES)",
    "an edit": "took(lambda f=dpnb.TrainingForm(training()): f.edited(('epochs',), next(numbers)), 30)",
    "an edit, every page and advanced field open": (
        "took(lambda f=everything_open(): f.edited(('epochs',), next(numbers)), 30)"
    ),
    "a search": (
        "took(lambda box=dpnb.TrainingForm(training())._search: box.set_trait('value', WORDS[next(numbers) % 2]))"
    ),
    "build: a dataset of 30 folders": (
        "took(lambda d=Dataset(resolutions=[512], directory=[Directory(path=str(i)) for i in range(30)]):"
        " Form(d, first=('directory',)).close(), 3)"
    ),
}


def main() -> None:
    from jupyter_client.manager import start_new_kernel

    with tempfile.TemporaryDirectory() as folder:
        manager, client = start_new_kernel(kernel_name="python3", cwd=folder)
        try:
            _result(client, SETUP, "None")
            show("Forms in a live kernel", {name: float(_result(client, "", row)) for name, row in ROWS.items()})
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _result(client: Any, source: str, expression: str) -> str:
    """What an expression gives after a cell; by the reply, since of thousands of widget messages some may be lost."""
    reply = client.execute(source, user_expressions={"it": expression}, reply=True, timeout=300)
    found = reply["content"]["user_expressions"]["it"]
    if found["status"] != "ok":
        raise RuntimeError(found["evalue"])
    return str(found["data"]["text/plain"])


if __name__ == "__main__":
    main()
