from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.devices import Reach, load_device, parse_reach
from edgemtl.errors import UserError


@pytest.mark.parametrize(
    ("url", "reach"),
    [
        ("ssh://pi@raspberrypi.local", Reach(host="raspberrypi.local", user="pi")),
        ("ssh://raspberrypi", Reach(host="raspberrypi")),
        ("ssh://pi@10.0.0.7:2222", Reach(host="10.0.0.7", user="pi", port=2222)),
        ("ssh://pi@[fe80::1]:22", Reach(host="fe80::1", user="pi", port=22)),
        ("ssh://pi@pi5/home/pi/venv/bin/python3", Reach(host="pi5", user="pi", python="/home/pi/venv/bin/python3")),
    ],
)
def test_an_address_is_read_and_written(url: str, reach: Reach) -> None:
    assert parse_reach(url) == reach
    assert reach.url == url


@pytest.mark.parametrize(
    "url",
    [
        "ssh://", "ssh://pi@", "ssh://-oProxyCommand=x@pi", "ssh://-v", "ssh://pi:secret@pi5", "ssh://pi@pi5:0",
        "ssh://pi@pi5:99999", "ssh://pi@pi5/bin/python3;reboot", "ssh://pi@pi5/a b", "ssh://pi@pi 5", "ssh://$(reboot)",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(UserError, match="is no address of a board: write ssh://user@host") as caught:
        parse_reach(url)
    assert "\n" not in str(caught.value)


def test_an_address_is_a_device_of_which_nothing_is_taken_for_granted() -> None:
    device = load_device("ssh://pi@Raspberry_Pi:2222")
    assert (device.name, device.title) == ("raspberry-pi", "ssh://pi@Raspberry_Pi:2222")
    assert (device.kind, device.arithmetic, device.measurer) == ("board", "other", "ssh")


def test_a_device_whose_file_says_how_it_is_reached_is_measured_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles" / "my-pi.yaml"
    file.parent.mkdir()
    head = "schema: edgemtl.device/1\nname: my-pi\ntitle: Mine\nkind: board\nprecisions: [fp32]\n"
    text = f"{head}runtimes: [{{name: onnxruntime, precisions: [fp32]}}]\n"
    monkeypatch.chdir(tmp_path)
    for reach, measurer in (
        ("", None),
        ("reach: {host: pi5}\n", "ssh"),
        ("reach: {host: pi5}\nmeasurer: none\n", "none"),
    ):
        file.write_text(text + reach)
        assert load_device("my-pi").measurer == measurer
