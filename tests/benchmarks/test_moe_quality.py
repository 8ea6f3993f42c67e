from __future__ import annotations

from moe_quality import lead_rows, learnt_row


def test_a_lead_counts_where_its_interval_is_above_zero() -> None:
    mean, limit = lead_rows("lead", [0.5, 0.6, 0.7])
    assert mean.holds and limit.holds and limit.name == "lead_lower_limit"
    mean, limit = lead_rows("lead", [0.1, 0.2, 3.0])
    assert mean.holds and limit.holds is False


def test_nets_that_have_not_learnt_fail_whoever_is_ahead() -> None:
    scores = {
        f"seed{seed}": {
            "dense": {"semseg": {"miou": 0.5}},
            "experts": {"semseg": {"miou": miou}},
            "one_net_a_task": {"semseg": {"miou": 0.1}},
        }
        for seed, miou in enumerate((0.47, 0.46))
    }
    assert learnt_row(scores).holds
    scores["seed0"]["dense"]["semseg"]["miou"] = 0.09
    assert learnt_row(scores).value == 0.09 and learnt_row(scores).holds is False
