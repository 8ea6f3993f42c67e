"""A strategy of another package, with a stage and settings of its own: found, searched with, stopped, resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from climb_strategy import Climb
from plugged import install

from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.nas.search import SearchRequest, search
from edgemtl.progress import Progress
from edgemtl.runs import read_config
from edgemtl.spaces import load_space
from edgemtl.testing import StrategyConformance
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import write_data, write_supernet

HERE = Path(__file__).parent
SEARCH = shlex.split(
    "search --strategy climb --set probes=2 --budget 80%FLOPs --space small --data photos "
    "--supernet supernet.safetensors --target tensorrt-rtx --evaluations 4 --finetune 0 --out killed"
)


class TestClimb(StrategyConformance):
    strategy = Climb(probes=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with data, a space and a supernet, and the plug-in installed."""
    folder, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    install(site, "edgemtl.strategies", "climb = climb_strategy:Climb", (HERE / "climb_strategy.py").read_text())
    source = open_source(str(write_data(folder / "photos")), (64, 64))
    write_supernet(load_space(str(write_space(folder, "small")), source.tasks), folder / "supernet.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(folder)
        yield folder


def request(out: Path, **changes: object) -> SearchRequest:
    """The search that the command line asks for; nothing in it is timed, so that two answers are the same."""
    defaults = {
        "budgets": ("80%FLOPs",), "space": "small", "data": "photos", "target": "tensorrt-rtx", "strategy": "climb",
        "settings": {"probes": 2}, "evaluations": 4, "finetune": 0, "supernet": Path("supernet.safetensors"),
    }  # fmt: skip
    return SearchRequest(out, **(defaults | changes))  # type: ignore[arg-type]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgemtl.cli import main
from edgemtl.nas.evaluation import Evaluator

method, file, text, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
whole = getattr(Evaluator, method)

def killed(*given, **more):
    if file.is_file() and file.read_text().count(text) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given, **more)

setattr(Evaluator, method, killed)
sys.exit(main(sys.argv[5:]))
"""


def killed_in(method: str, file: Path, text: str, count: int, *more: str) -> None:
    """Run the command, which dies in a call of the evaluator's method, once a file holds a text so many times."""
    words = [sys.executable, "-c", KILLED, method, str(file), text, str(count), *SEARCH, *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_it_is_killed_in_its_stage_and_among_its_designs_and_ends_as_if_unbroken(home: Path) -> None:
    """Begun on the command line, ended by a call."""
    events: list[Progress] = []
    unbroken = search(request(home / "whole"), events.append)
    assert unbroken.strategy == "climb" and unbroken.feasible
    assert [event.done for event in events if event.stage == "climb"] == [0, 1, 2]
    probes, journal = home / "killed" / "climb" / "probes.json", home / "killed" / "study.journal"
    killed_in("simulated", probes, ":", 1)
    assert len(json.loads(probes.read_text())) == 1
    assert not journal.exists() or '"key":' not in journal.read_text()
    killed_in("evaluate", journal, '"key":', 2, "--resume")
    assert not (home / "killed" / "result.json").exists()
    events.clear()
    result = search(request(home / "killed", resume=True), events.append)
    assert (result.best, result.front) == (unbroken.best, unbroken.front)
    assert probes.read_text() == (home / "whole" / "climb" / "probes.json").read_text()
    assert [event.done for event in events if event.stage == "search"] == [3, 4]


def test_its_settings_are_the_runs(home: Path) -> None:
    """A run goes on with the same ones only, and a wrong one is told before anything is written."""
    if not (home / "whole").exists():
        search(request(home / "whole"))
    assert read_config(home / "whole").strategy_config == {"probes": 2}
    with pytest.raises(UserError, match=r"was started with another probes \(2, here 3\): resume it with the same"):
        search(request(home / "whole", settings={"probes": 3}, resume=True))
    with pytest.raises(UserError, match="unknown setting of strategy climb: 'probe': did you mean probes"):
        search(request(home / "other", settings={"probe": 3}))
    with pytest.raises(UserError, match="0 probes given: strategy climb needs 1 or more"):
        search(request(home / "other", settings={"probes": 0}))
    assert not (home / "other").exists()


def test_the_command_line_shows_its_result(command: Callable[..., tuple[int, Any, str]]) -> None:
    status, result, errors = command(*SEARCH[:-1], "shown")
    assert status == 0, errors
    assert result["strategy"] == "climb"
