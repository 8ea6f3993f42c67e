"""JetPack releases: what each brings, and names that are none."""

from __future__ import annotations

import pytest

from edgemtl.errors import UserError
from edgemtl.jetpack import JETPACKS, find_jetpack, known_jetpack, version_of


def test_a_release_is_found_by_its_name_and_by_a_patch_release() -> None:
    assert find_jetpack("6.2").tensorrt == find_jetpack("6.2.1").tensorrt == "10.3.0"
    assert known_jetpack("7.2") is None and known_jetpack("7.2.2") is JETPACKS["7.2.2"]


@pytest.mark.parametrize("name", ["6.3", "7.2", "", "six", "62"])
def test_an_unknown_release_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown JetPack .*allowed: 5\.1, 6\.0, 6\.1, 6\.2, 7\.0, 7\.1, 7\.2\.2"):
        find_jetpack(name)


def test_versions_are_compared_by_numbers() -> None:
    assert version_of("10.3") > version_of("8.6.2")
    assert version_of("10.13.3") > version_of("10.3.0")


def test_releases_stand_from_the_oldest_to_the_newest() -> None:
    assert list(JETPACKS) == sorted(JETPACKS, key=version_of)
