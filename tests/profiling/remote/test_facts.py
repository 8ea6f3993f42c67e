"""What a board answers after a login, and an answer that is none."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from loopback import LoopbackBoard
from refusals import refused

from edgemtl.arithmetic import own_arithmetic
from edgemtl.devices import parse_reach
from edgemtl.profiling import read_board
from edgemtl.profiling.remote.pack import bootstrap_source

LIAR = """#!{python}
import sys
sys.path.insert(0, {root!r})
from edgemtl.profiling.frames import Frame, read_frame, write_frame

sys.stdin.buffer.read(int(sys.argv[-2]) + {bootstrap})
write_frame(sys.stdout.buffer, Frame({{"machine": "aarch64", "packages": 5, "environment": [], "sensors": {{}}}}))
write_frame(sys.stdout.buffer, Frame({{"number": read_frame(sys.stdin.buffer).fields["number"]}}))
"""


def test_a_board_says_what_it_is_and_nothing_is_left_there(board: LoopbackBoard) -> None:
    answer = read_board(parse_reach(board.url()))
    assert (answer.processor, answer.packages["numpy"]) == (own_arithmetic(), version("numpy"))
    assert answer.packages["tensorrt"] is None and f"Python {sys.version.split()[0]}" in answer.system
    assert bool(answer.rails) != bool(answer.no_rails), "what energy is measured by, or why it is not"
    assert board.left == []


def test_an_answer_that_is_none_is_one_line(board: LoopbackBoard, tmp_path: Path) -> None:
    liar = tmp_path / "python3"
    bootstrap = len(bootstrap_source().encode())
    liar.write_text(LIAR.format(python=sys.executable, root=str(Path.cwd()), bootstrap=bootstrap))
    liar.chmod(0o755)
    line = refused(lambda: read_board(parse_reach(board.url(str(liar)))))
    assert "answers what is not understood" in line
