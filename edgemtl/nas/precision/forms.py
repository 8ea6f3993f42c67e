"""Narrower forms of a net as engines of them are written: through their ONNX files, as an export will read them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgemtl.nas.precision.finalists import Candidate
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import FineTuning, Fit, Narrowing, NarrowNet
from edgemtl.own import NET_FILE, open_net
from edgemtl.progress import Report

__all__ = ["ROUNDED", "NarrowForms", "training_of"]

ROUNDED, _TUNED = "trained", "-tuned"
"""The name of the net with all its channels that was trained through eight bits, and how those of others end."""


def training_of(name: str) -> str:
    """How the form of this name was trained, in words; empty where it has the weights that were given."""
    if name == ROUNDED:
        return "through the rounding of eight bits"
    return "in float, once channels were removed" if name.endswith(_TUNED) else ""


class NarrowForms:
    """Narrower forms of the net that `whole` is of, by name; each is made once, until it is let go."""

    def __init__(self, whole: Proposal, narrowing: Narrowing, scored: Scored, report: Report) -> None:
        self.whole, self.narrowing = whole, narrowing
        self._scored, self._report = scored, report
        self._proposals, self._nets = dict[str, Proposal](), dict[str, NarrowNet]()

    def proposal(self, name: str, fit: Fit) -> Proposal:
        """Precisions of the form of this name, which has so many channels."""
        if name not in self._proposals:
            self._open(name, self.narrowing.narrow(fit))
        return self._proposals[name]

    def named(self, name: str) -> Proposal:
        """Precisions of a form that was made."""
        return self._proposals[name]

    def tuned(self, name: str, tuning: FineTuning, folder: Path) -> Proposal:
        """Precisions of the form of this name once it is trained; its checkpoints go to `folder`."""
        return self._open(f"{name}{_TUNED}", self.narrowing.fine_tune(self._nets[name].fit, tuning, folder))

    def rounded(self, tuning: FineTuning, folder: Path) -> Proposal:
        """Precisions of the net with all its channels once it is trained through eight bits."""
        scheme = self.whole.setup.bench.target.scheme
        return self._open(ROUNDED, self.narrowing.fine_tune_rounded(tuning, folder, scheme))

    def let_go(self, name: str) -> None:
        """Keep the form of this name no longer, if it is there: nets take memory."""
        self._proposals.pop(name, None)
        self._nets.pop(name, None)

    def write(self, folder: Path, candidate: Candidate) -> None:
        """Write what is left of the net: its weights, ONNX file, tasks, and `pruning.json`."""
        self.narrowing.write(folder, self._nets[candidate.setup.name])

    def _open(self, name: str, narrow: NarrowNet) -> Proposal:
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
            path = Path(folder) / NET_FILE
            path.write_bytes(narrow.model.SerializeToString())
            net = open_net(str(path))
        setup = self.whole.setup.of(net, self.narrowing.declaration, name, narrow.fit.channels)
        self._nets[name] = narrow
        self._proposals[name] = Proposal(setup, self._scored, self._report)
        return self._proposals[name]
