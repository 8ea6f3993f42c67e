from __future__ import annotations

import pytest
from search_worth import rows_of

DELTAS = {"chosen": [-0.01, 0.0, 0.01], "scaled": [-0.05, -0.04, -0.03], "pruned": [0.0, 0.0, 0.03]}


def test_leads_are_means_over_seeds_and_rivals_must_use_their_latency() -> None:
    rows = {row.name: row for row in rows_of("openvino", DELTAS, {"chosen": 10.0, "scaled": 10.2, "pruned": 8.0})}
    assert rows["openvino_ahead_of_scaled"].value == pytest.approx(4) and rows["openvino_ahead_of_scaled"].holds
    assert rows["openvino_ahead_of_pruned"].value == pytest.approx(-1)
    assert rows["openvino_ahead_of_pruned"].holds is False
    assert rows["openvino_latency_of_scaled"].holds and rows["openvino_latency_of_pruned"].holds is False
