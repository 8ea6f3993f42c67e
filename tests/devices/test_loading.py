from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgemtl.devices import Device, Runtime, any_processor, device_names, load_device, reached_now, resolve
from edgemtl.environment import environment
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.jetpack import JETPACKS
from edgemtl.schema import validated
from edgemtl.units import parse_budget

ROOT = Path(__file__).parents[2]
SHIPPED = (
    "host",
    "intel-n100",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-thor",
    "jetson-xavier-nx",
    "kv260",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "rock-5b",
    "x86-avx2",
    "x86-vnni",
    "xeon-ice-lake",
    "xeon-sapphire-rapids",
    "zcu102",
    "zcu104",
)
DATA_SHEET = ("soc", "accelerator", "memory", "bandwidth", "systems", "peaks", "power_modes", "sensors", "fpga")
"""Facts that a document states, of which a shipped board names one."""


def test_shipped_devices_load() -> None:
    assert set(SHIPPED) <= set(device_names())
    for name in SHIPPED:
        device = load_device(name)
        assert device.name == name
        assert (device.kind == "host") == (name == "host")
        assert device.reach.host == ""


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith(("host", "x86"))])
def test_every_fact_of_a_shipped_board_has_its_source(name: str) -> None:
    written = yaml.safe_load((ROOT / "profiles" / f"{name}.yaml").read_text())
    cited = {fact for source in load_device(name).sources for fact in source.facts}
    assert {fact for fact in DATA_SHEET if fact in written} <= cited


def test_the_boards_of_a_user_are_there_with_their_figures() -> None:
    orin, thor, pi = (load_device(name) for name in ("jetson-agx-orin", "jetson-thor", "raspberry-pi-5"))
    assert orin.memory_bytes == 64 * 2**30 and orin.memory_bytes_per_s == 204.8e9
    assert orin.peaks_of("gpu") == {"fp32": 5.3e12, "fp16": 42.5e12, "int8": 85e12}, "dense rates alone"
    assert orin.runtime("tensorrt").unit == "gpu" and orin.peaks_of("cpu") == {}
    assert {system.name: system.versions.get("tensorrt") for system in thor.systems}["JetPack 7.2.2"] == "11.4.1"
    assert pi.memory_bytes_per_s == 17.1e9
    fpga = load_device("kv260").fpga
    assert fpga is not None and (fpga.luts, fpga.dsps, fpga.bram_36k, fpga.urams) == (117120, 1248, 144, 64)


def test_versions_by_system_are_those_of_the_jetpack_releases() -> None:
    listed = 0
    for device in map(load_device, SHIPPED):
        for system in device.systems:
            release = JETPACKS.get(system.name.removeprefix("JetPack "))
            if release is not None and "tensorrt" in system.versions:
                assert system.versions == {"tensorrt": release.tensorrt, "cuda": release.cuda}
                assert system.python == release.python
                listed += 1
    assert listed > 10


def test_host_is_filled_in_from_the_machine() -> None:
    host, machine = load_device("host"), environment()
    assert host.memory_bytes == machine["memory"]["total_bytes"]
    assert ("bf16" in host.precisions) == bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine["cpu"]["flags"]))


def test_what_a_device_multiplies_with_is_detected_or_stated() -> None:
    assert load_device("host").arithmetic == environment()["cpu"]["class"]
    assert load_device("raspberry-pi-4").arithmetic == "arm"
    jetson = load_device("jetson-orin-nano")
    assert [jetson.arithmetic_of(name) for name in ("tensorrt", "onnxruntime", "another")] == [
        "gpu",
        "arm-dot",
        "arm-dot",
    ]
    assert any_processor(jetson).arithmetic_of("onnxruntime") == "other"
    assert any_processor(jetson).arithmetic_of("tensorrt") == "gpu", "a GPU is no other one"


def test_any_processor_forgets_what_runtimes_say_of_theirs() -> None:
    """Also of a GPU behind a runtime that the host has: its engines are opened on processors too."""
    stated = {"onnxruntime": "amx", "openvino": "gpu", "tensorrt": "gpu", "tflite": "arm-dot"}
    runtimes = tuple(Runtime(name=name, precisions=("int8",), arithmetic=found) for name, found in stated.items())  # type: ignore[arg-type]
    board = load_device("x86-vnni").model_copy(update={"runtimes": runtimes})
    assert [board.arithmetic_of(name) for name in stated] == list(stated.values())
    assert [any_processor(board).arithmetic_of(name) for name in stated] == ["other", "other", "gpu", "other"]


def test_only_this_machine_is_here() -> None:
    """The host of a run that was made elsewhere is another processor under the same name."""
    assert [name for name in SHIPPED if load_device(name).is_here] == ["host"]
    elsewhere = "avx2" if load_device("host").arithmetic != "avx2" else "amx"
    assert not load_device("host").model_copy(update={"arithmetic": elsewhere}).is_here


def test_a_machine_without_bf16_is_not_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = environment()
    machine["cpu"] |= {"flags": ["avx2", "avx512_bf16"]}
    for module in ("loading", "schema"):
        monkeypatch.setattr(f"edgemtl.devices.{module}.environment", lambda: machine)
    host = load_device("host")
    assert host.is_here and "bf16" in host.precisions
    less = host.model_copy(update={"precisions": ("fp32", "int8")})
    machine["cpu"]["flags"] = ["avx2"]
    assert not host.is_here
    assert less.is_here


def test_what_a_run_keeps_of_a_device_is_the_device_again() -> None:
    for name in SHIPPED:
        device = load_device(name)
        kept = validated(Device, device.as_json())
        assert kept.as_json() == device.as_json()
        assert (kept.name, kept.arithmetic, kept.runtimes) == (device.name, device.arithmetic, device.runtimes)


def test_a_run_keeps_what_decides_and_takes_the_rest_as_it_is_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own(tmp_path, monkeypatch, memory="4 GiB", reach={"host": "board"})
    kept = Device.model_validate(load_device("mine").as_json()).model_copy(update={"arithmetic": "arm"})
    assert (kept.memory_bytes, kept.reach.host) == (None, "")
    now = reached_now(kept)
    assert (now.memory_bytes, now.reach.host, now.arithmetic) == (4 * 2**30, "board", "arm")
    (tmp_path / "profiles" / "mine.yaml").unlink()
    assert reached_now(kept) is kept


def test_host_without_bf16_instructions_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = environment()
    machine["cpu"] |= {"flags": ["avx2"], "class": "avx2"}
    for module in ("loading", "schema"):
        monkeypatch.setattr(f"edgemtl.devices.{module}.environment", lambda: machine)
    host = load_device("host")
    assert "bf16" not in host.precisions
    assert "bf16" not in host.runtime("openvino").precisions
    assert "int8" in host.runtime("openvino").precisions


def test_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean jetson-orin-nano"):
        load_device("jetson-orin-nan")


@pytest.mark.parametrize("name", ["../profiles/host", "host.yaml", "", "/etc/passwd"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UserError, match="unknown device"):
        load_device(name)


def _own(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    content = {
        "schema": "edgemtl.device/1",
        "name": "mine",
        "title": "Mine",
        "kind": "board",
        "precisions": ["fp32"],
        "runtimes": [{"name": "onnxruntime", "precisions": ["fp32"]}],
        **changes,
    }
    (folder / "profiles").mkdir()
    (folder / "profiles" / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(folder)


def test_a_users_own_device_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _own(tmp_path, monkeypatch, memory="4 GiB")
    assert load_device("mine").memory_bytes == 4 * 2**30
    assert "zcu102" in device_names()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "the whole file: unknown field 'colour'"),
        ({"runtimes": [{"name": "onnxruntime", "precision": ["fp32"]}]}, "runtimes.0.precisions: Field required"),
        (
            {"power_modes": [{"name": "15W", "watts": "15 W"}]},
            "power_modes.0: unknown field 'watts': allowed: limit, name",
        ),
        ({"reach": {"hosts": "board"}}, "reach: unknown field 'hosts': did you mean host"),
        ({"fpga": {"part": "a", "luts": 1, "flip_flops": 1, "bram_36k": 1, "dsp": 1}}, "fpga.dsps: Field required"),
        ({"memroy": "8 GiB"}, "unknown field 'memroy': did you mean memory"),
        ({"memory": "8 GIB"}, "memory: unknown unit in '8 GIB': 'GIB': did you mean"),
        ({"memory": 8589934592}, "memory: 8589934592 is no amount with a unit: write, for example, 8 GiB"),
        ({"bandwidth": "68 GB"}, "bandwidth: unknown unit in '68 GB': 'GB': did you mean GB/s"),
        ({"power_modes": [{"name": "15W", "limit": "15 Watt"}]}, "power_modes.0.limit: unknown unit"),
        ({"peaks": [{"unit": "gpu", "precision": "int8", "rate": "40 TOP", "kind": "stated"}]}, "did you mean TOPS"),
        ({"peaks": [{"unit": "gpu", "precision": "int8", "rate": "40 TOPS"}]}, "peaks.0.kind: Field required"),
        ({"sources": [{"facts": ["colour"], "document": "a"}]}, "unknown field in the facts of a source: 'colour'"),
        ({"runtimes": [{"name": "onnxruntime", "precisions": ["int8"]}]}, "precision of runtime onnxruntime: 'int8'"),
        ({"systems": [{"name": "JetPack 6.2", "python": "2.7"}]}, "systems.0.python"),
        ({"precisions": ["fp7"]}, "precisions.0"),
        ({"memory": "-1 GiB"}, "memory: '-1 GiB' is no amount"),
        ({"memory": "0 GiB"}, "memory: Input should be greater than 0"),
        ({"arithmetic": "abacus"}, "arithmetic"),
        ({"name": "other"}, "rename the file"),
        ({"schema": "edgemtl.device/9"}, "schema"),
        ({"reach": {"host": "board; rm -rf /"}}, "reach.host"),
        ({"runtimes": []}, "runtimes"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], says: str
) -> None:
    _own(tmp_path, monkeypatch, **changes)
    with pytest.raises(UserError, match=says) as caught:
        load_device("mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.system ['true']", "- 1", "x" * 70_000])
def test_yaml_executes_nothing_and_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    _own(tmp_path, monkeypatch)
    (tmp_path / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_device("mine")
    assert "\n" not in str(caught.value)


def test_schema_allows_no_other_key() -> None:
    assert Device.model_config["extra"] == "forbid"


@pytest.mark.parametrize("text", ["2GFLOPs", "5MB", "60%FLOPs", "depth:1GMACs"])
def test_a_count_needs_no_device(text: str) -> None:
    assert resolve(parse_budget(text)) is None


@pytest.mark.parametrize(("text", "runtime"), [("8ms", None), ("8ms@host", None), ("8ms@host/openvino", "openvino")])
def test_latency_is_that_of_a_device(text: str, runtime: str | None) -> None:
    position = resolve(parse_budget(text))
    assert position is not None
    assert (position.device.name, position.runtime) == ("host", runtime)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("8ms@jetson-orin-nan", UserError, "did you mean jetson-orin-nano"),
        ("8ms@host/openvin", UserError, "did you mean openvino"),
        ("8ms@jetson-orin-nano/openvino", UserError, "runtime of device jetson-orin-nano"),
        ("20mJ", UnsupportedError, "no limits in energy, which edgemtl profile measures"),
    ],
)
def test_what_cannot_be_measured_here_is_refused(text: str, error: type[UserError], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve(parse_budget(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
            "25000 values",
        ),
        ("name: mine\nname: other", "the key 'name' is there twice"),
        (f"memory: {'9' * 5000}", "is no int"),
        ("notes: [2024-02-31]", "is no timestamp"),
        ("#" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_a_strangers_file_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    _own(tmp_path, monkeypatch)
    (tmp_path / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        load_device("mine")
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
