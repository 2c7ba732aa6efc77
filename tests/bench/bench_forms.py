"""Forms in a live kernel: building, one edit, one search, and what the first display sends.

The budget is 300 ms to build a form, 50 ms an edit, 300 models and 400 kB for the first display, of any family, and
nothing that stays behind a form that is closed. Times are those of the kernel's own thread, which is what a clock
shows where nothing else is at work.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import show

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
SETUP = f"""
import gc, sys, threading, time, statistics
sys.path.insert(0, {str(REPOSITORY)!r})
import dpnb
from ipywidgets.widgets.widget import _instances as live
from tests.dpnb.every_family import FAMILIES, training
from dpnb.schema import Dataset, Directory
from dpnb.widgets.form import Form

def took(work, repeats=7):
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)

def build(family):
    dpnb.TrainingForm(training(family=family)).close()

def everything_open():
    form = dpnb.TrainingForm(training())
    form._toggle.value = True
    for page in range(len(form._pages)):
        form._tab.selected_index = page
    return form

def left_behind():
    import comm
    gc.collect()
    return len(live), len(comm.get_comm_manager().comms), threading.active_count()

numbers = iter(range(1, 10**6))
WORDS = ('learning', 'every n')
build('flux')
form = dpnb.TrainingForm(training())
"""
ROWS = {
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
CLOSED = "[(before := left_behind()), [build('flux') for _ in range(100)], left_behind()][::2]"


def main() -> None:
    from jupyter_client.manager import start_new_kernel

    from tests.dpnb.every_family import FAMILIES

    with tempfile.TemporaryDirectory() as folder:
        manager, client = start_new_kernel(kernel_name="python3", cwd=folder)
        try:
            _result(client, SETUP, "None")
            _show_first_displays(client, list(FAMILIES))
            show("Forms in a live kernel", {name: float(_result(client, "", row)) for name, row in ROWS.items()})
            built = {family: float(_result(client, "", f"took(lambda: build({family!r}), 5)")) for family in FAMILIES}
            show("Build a training form", dict(sorted(built.items(), key=lambda row: row[1])))
            print(f"\nWidgets, comms and threads before and after 100 forms: {_result(client, '', CLOSED)}")
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _show_first_displays(client: Any, families: list[str]) -> None:
    """What a front end is sent for a form of each family."""
    print("\nFirst display of a training form")
    for family in families:
        sent: list[dict[str, Any]] = []
        source = f"form.close()\nform = dpnb.TrainingForm(training(family={family!r}))\nform"
        client.execute_interactive(source, timeout=300, output_hook=sent.append)
        opened = sum(message["msg_type"] == "comm_open" for message in sent)
        size = sum(len(json.dumps(message, default=str)) for message in sent)
        print(f"  {family:<44}{opened:>5} models{size / 1000:>8.0f} kB")


def _result(client: Any, source: str, expression: str) -> str:
    """What an expression gives after a cell; by the reply, since of thousands of widget messages some may be lost."""
    reply = client.execute(source, user_expressions={"it": expression}, reply=True, timeout=300)
    found = reply["content"]["user_expressions"]["it"]
    if found["status"] != "ok":
        raise RuntimeError(found["evalue"])
    return str(found["data"]["text/plain"])


if __name__ == "__main__":
    main()
