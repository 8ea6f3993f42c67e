"""Expert usage of a bundle: which task uses which, what each target's capacity drops, and how to drop nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from edgemtl.bundle import BundleDispatch, BundleExperts
from edgemtl.errors import UserError
from edgemtl.models import ExpertUsage, MultiTaskNet
from edgemtl.targets import DispatchPolicy, ExportTarget

__all__ = ["describe_dispatch", "describe_experts", "dropping_nothing"]


def dropping_nothing(target: ExportTarget, net: MultiTaskNet) -> ExportTarget:
    """The target with the net's capacity for each expert; itself where its capacity drops none.

    Raises `UserError` where that capacity is fixed: it can be changed where the exporter is a dataclass that has
    `dispatch` as a field.
    """
    dropping = [
        block.name
        for block in net.plan.blocks
        if (plan := block.experts) is not None
        if target.dispatch.limit(plan.tokens, len(plan.numbers), plan.top_k) < plan.expert_capacity
    ]
    if not dropping:
        return target
    if not _is_adjustable(target):
        raise UserError(
            f"target {target.traits.name} gives an expert a capacity of {target.dispatch.capacity} times an even share "
            f"of the tokens and nothing else, so that {dropping[0]} may drop some: export without --exact, or for "
            "another target"
        )
    made: Any = target
    return cast("ExportTarget", replace(made, dispatch=replace(target.dispatch, capacity=None)))


def _is_adjustable(target: object) -> bool:
    return is_dataclass(target) and "dispatch" in {field.name for field in fields(target)}


def describe_dispatch(target: ExportTarget, net: MultiTaskNet) -> BundleDispatch | None:
    """How the experts of `net` get their tokens on a target; None without experts."""
    routed = [block.experts for block in net.plan.blocks if block.experts is not None]
    if not routed:
        return None
    forms = {target.dispatch.form_within(plan.expert_capacity, plan.tokens) for plan in routed}
    return BundleDispatch(
        form=target.dispatch.form if len(forms) > 1 else forms.pop(), capacity=target.dispatch.capacity
    )


def describe_experts(
    net: MultiTaskNet, usage: Sequence[ExpertUsage], precision: Mapping[str, str], targets: Sequence[ExportTarget]
) -> tuple[BundleExperts, ...]:
    """The manifest's entry for each of `usage`; bytes are those that the first target stores in `precision`."""
    plans = {block.parameters: block.experts for block in net.plan.blocks if block.experts is not None}
    limited = {t.traits.name: t.dispatch for t in targets if t.dispatch.capacity is not None} if usage else {}
    return tuple(
        BundleExperts(
            layer=use.layer,
            task=use.task,
            experts=use.experts,
            top_k=use.top_k,
            tokens=use.tokens,
            images=len(use.counts),
            shares=use.shares,
            gates=use.gates,
            most_tokens=use.most_tokens,
            expert_bytes=sum(
                layer.bytes(precision.get(use.layer, "float"), targets[0].traits.storage)
                for layer in (plans[use.layer].first, plans[use.layer].second)
            ),
            dropped_by_model=max(0.0, use.dropped_by_model),
            dropped_by_target={name: _dropped(use, dispatch) for name, dispatch in limited.items()},
        )
        for use in usage
    )


def _dropped(use: ExpertUsage, dispatch: DispatchPolicy) -> float:
    return use.dropped_by_target(dispatch.limit(use.tokens, len(use.experts), use.top_k))
