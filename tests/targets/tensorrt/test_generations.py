"""Generations of TensorRT: every JetPack's version belongs to one."""

from __future__ import annotations

import pytest

from edgemtl.errors import UserError
from edgemtl.jetpack import JETPACKS
from edgemtl.targets.tensorrt.generations import TENSORRT_VERSIONS, generation_of


def test_every_jetpack_brings_a_generation() -> None:
    assert [generation_of(release.tensorrt).since for release in JETPACKS.values()] == [
        "8.5", "8.6", "10.0", "10.0", "10.13", "10.13", "11.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "since"), [("8.5", "8.5"), ("8.6.2", "8.6"), ("10.3", "10.0"), ("10.13.0", "10.13"), ("11.5", "11.0")]
)
def test_a_version_between_two_belongs_to_the_older_one(version: str, since: str) -> None:
    assert generation_of(version).since == since


def test_what_is_older_than_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"TensorRT 8\.4\.1 given: 8\.5 or newer"):
        generation_of("8.4.1")


def test_precision_is_a_flag_up_to_8_and_a_type_from_10_on() -> None:
    assert [generation_of(version).strongly_typed for version in TENSORRT_VERSIONS] == [False, True, True, True]
