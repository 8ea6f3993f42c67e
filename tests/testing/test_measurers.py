from __future__ import annotations

import pytest

from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.profiling import Measurer, find_measurer, measurer_names
from edgemtl.testing import MeasurerConformance


class TestLocal(MeasurerConformance):
    @pytest.fixture
    def measurer(self) -> Measurer:
        return find_measurer(load_device("host"), self.target)


def test_what_is_only_written_here_has_neither_latencies_nor_outputs() -> None:
    measurer = find_measurer(load_device("host"), "tensorrt-rtx", "none")
    assert measurer.untimed is not None
    assert measurer.untimed.reason == "target tensorrt-rtx does not run on this host"
    assert not measurer.runs({"engine": "fp32"}, ())


@pytest.mark.parametrize("usual", ["local", "none"])
def test_another_device_is_named_with_what_it_computes_with(usual: str) -> None:
    untimed = find_measurer(load_device("raspberry-pi-5"), "onnxruntime", usual).untimed
    assert untimed is not None
    assert untimed.reason == "device raspberry-pi-5 (arm-dot) is not this machine"


def test_an_unknown_measurer_of_a_profile_names_the_nearest() -> None:
    assert measurer_names() == ["local", "none", "ssh"]
    device = load_device("host").model_copy(update={"measurer": "locl"})
    with pytest.raises(UserError, match="unknown measurer 'locl': did you mean local"):
        find_measurer(device, "onnxruntime")
