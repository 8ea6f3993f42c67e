"""Conformance suite for export targets: inherit `TargetConformance` and set `target`."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgemtl.arithmetic import EXACT_INT8, EXACT_WEIGHT, lacking
from edgemtl.devices import device_names, load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export import Evidence, ExportRequest, export_bundle
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.runtime import EngineSpec, Session, open_engine
from edgemtl.targets import ExportTarget, PlainTarget, emit, find_target, is_runnable, measurer_of, needs_of
from edgemtl.tasks import by_tensor
from edgemtl.testing.examples import experts_net, grid_net, images, samples_for, small_net

__all__ = ["TargetConformance", "mixed_precision"]

FP32 = {"engine": "fp32"}


def mixed_precision(net: MultiTaskNet, target: ExportTarget, engine: str) -> dict[str, str]:
    """Every second block in INT8, where the target has it."""
    eight = "int8" in target.traits.block_precisions
    return {"engine": engine} | {
        name: "int8" if eight and number % 2 else "float" for number, name in enumerate(net.blocks)
    }


class TargetConformance:
    """The tests of one exporter, found by the name of its traits; what runs is skipped where no engine of it can.

    A subclass sets `target`, made for this machine. `unstable_bytes` may differ between two builds where a runtime's
    own builder is not reproducible.
    """

    target: ExportTarget
    unstable_bytes = 0

    def build(self, net: MultiTaskNet, folder: Path, precision: dict[str, str] | None = None) -> list[Path]:
        """Build with ranges from eight images, in the target's first engine precision by default."""
        ranges: Ranges | None = None
        precision = precision or {"engine": self.target.traits.engine_precisions[0]}
        if "int8" in precision.values():
            ranges = calibrate(net, images(8))
        return self.target.build(net, precision, ranges, folder)

    def session(self, net: MultiTaskNet, folder: Path, precision: dict[str, str] | None = None) -> Session:
        """Build and open."""
        self.skip_unless_runnable()
        self.build(net, folder, precision)
        return measurer_of(self.target).open(folder, threads=1)

    def skip_unless_runnable(self) -> None:
        """Skip a test that needs a run."""
        if not is_runnable(self.target, FP32):
            pytest.skip(f"engines of {self.target.traits.name} do not run on this machine")

    def test_traits_name_a_runtime_and_a_first_precision(self) -> None:
        """The search reads them before it has a net."""
        traits = self.target.traits
        assert find_target(traits.name, self.target.device).traits == traits
        assert traits.block_precisions[0] == "float"
        assert set(traits.block_precisions) <= {"float", "int8"}
        assert traits.engine_precisions[0] == "fp32"
        assert traits.channel_multiple >= 1
        assert traits.runtime
        assert traits.title
        assert all(quantity.counted and quantity.count is not None for quantity in traits.quantities)

    @pytest.mark.parametrize("block", ["depthwise", "fused"])
    def test_fp32_outputs_are_the_nets(self, tmp_path: Path, block: str) -> None:
        """Within FP32 rounding."""
        net, image = small_net(block, "relu6"), images(1)
        session = self.session(net, tmp_path, {"engine": "fp32"})
        with torch.no_grad():
            expected = by_tensor(net(image))
        outputs = by_tensor(session.run(image.numpy(), session.tasks))
        assert list(outputs) == list(expected)
        for task, value in expected.items():
            np.testing.assert_allclose(outputs[task], value.numpy(), rtol=1e-3, atol=1e-3)
        session.close()

    def test_every_subset_returns_its_tasks_and_only_them(self, tmp_path: Path) -> None:
        """In any order, switching back and forth."""
        net, image = small_net(), images(1)
        session = self.session(net, tmp_path)
        with torch.no_grad():
            expected = by_tensor(net(image))
        subsets = [names for size in (1, 2, 3) for names in itertools.combinations(session.tasks, size)]
        for names in [*subsets, *reversed(subsets)]:
            outputs = by_tensor(session.run(image.numpy(), names[::-1]))
            assert set(outputs) == set(names)
            for task in names:
                np.testing.assert_allclose(outputs[task], expected[task].numpy(), rtol=2e-1, atol=2e-1)
        session.close()

    def test_an_unwanted_task_is_not_computed(self, tmp_path: Path) -> None:
        """By the runtime's own profile: no operator of an unwanted task's blocks runs."""
        net, image = small_net(), images(1)
        session = self.session(net, tmp_path)
        times = session.operator_times(image.numpy(), ["depth"], 3)
        if not times:
            session.close()
            pytest.skip(f"the runtime {self.target.traits.runtime} does not tell what it runs")
        blocks = {entry.block for entry in times}
        assert {"stem", "depth_neck"} <= blocks
        assert not [name for name in blocks if name.startswith(("semseg", "normals"))]
        assert all(entry.mean_ms >= 0 for entry in times)
        session.close()

    def test_tasks_that_share_a_part_of_their_paths(self, tmp_path: Path) -> None:
        """Every subset is right, in float and with INT8 blocks, and runs no block that only others keep."""
        net, image = grid_net(), images(1)
        session = self.session(net, tmp_path / "float", {"engine": "fp32"})
        with torch.no_grad():
            expected = by_tensor(net(image))
        for names in [names for size in (1, 2, 3) for names in itertools.combinations(session.tasks, size)]:
            outputs = by_tensor(session.run(image.numpy(), names))
            for task in names:
                np.testing.assert_allclose(outputs[task], expected[task].numpy(), rtol=1e-3, atol=1e-3)
        ran = {entry.block for entry in session.operator_times(image.numpy(), ["normals"], 2)}
        session.close()
        assert not [name for name in ran if name.endswith(("__depth", "__semseg")) or name == "f2p0to2"]
        precision = mixed_precision(net, self.target, "fp32")
        mixed = self.session(net, tmp_path / "mixed", precision)
        outputs = {task: value.copy() for task, value in by_tensor(mixed.run(image.numpy(), mixed.tasks)).items()}
        mixed.close()
        simulated = by_tensor(simulate(net, precision, calibrate(net, images(8)), self.target.scheme)(image))
        for task, value in simulated.items():
            rounding = (value - expected[task]).norm().item()
            apart = float(np.linalg.norm(outputs[task] - value.numpy()))
            assert apart <= 0.5 * rounding + 1e-4 * expected[task].norm().item(), task

    @pytest.mark.parametrize("capacity", [None, 1.0])
    def test_tasks_that_send_tokens_to_experts(self, tmp_path: Path, capacity: float | None) -> None:
        """Every subset is right: no token is dropped but those that the net drops itself."""
        net, image = experts_net(capacity), images(1, (64, 96))
        with torch.no_grad():
            expected, free = by_tensor(net(image)), by_tensor(experts_net(None)(image))
        assert capacity is None or any(not torch.allclose(expected[task], free[task], atol=1e-2) for task in free)
        if self.target.dispatch.capacity is not None:
            pytest.skip(f"{self.target.traits.name} drops what has no place in its engines")
        session = self.session(net, tmp_path, {"engine": "fp32"})
        for names in [names for size in (1, 2, 3) for names in itertools.combinations(session.tasks, size)]:
            outputs = by_tensor(session.run(image.numpy(), names))
            for task in names:
                np.testing.assert_allclose(outputs[task], expected[task].numpy(), rtol=1e-3, atol=1e-3)
        session.close()

    def test_a_net_of_one_task_builds(self, tmp_path: Path) -> None:
        """Nothing is left to choose from."""
        net, image = small_net().subset(["normals"]), images(1)
        session = self.session(net, tmp_path)
        with torch.no_grad():
            expected = by_tensor(net(image))["normals"].numpy()
        np.testing.assert_allclose(
            by_tensor(session.run(image.numpy(), ["normals"]))["normals"], expected, rtol=2e-1, atol=2e-1
        )
        session.close()

    def test_a_plain_file_answers_every_task_as_the_engine_does(self, tmp_path: Path) -> None:
        """Without flags, for targets that write such files; `finish` gives the model that is written."""
        net, image, finished = small_net(), images(1).numpy(), []
        if not isinstance(self.target, PlainTarget):
            pytest.skip(f"{self.target.traits.name} writes no plain files")

        def finish(model: onnx.ModelProto) -> onnx.ModelProto:
            finished.append([output.name for output in model.graph.output])
            return model

        plain, precision = tmp_path / "plain", mixed_precision(net, self.target, "fp32")
        plain.mkdir()
        spec = self.target.build_plain(net, precision, calibrate(net, images(8)), plain, finish)
        assert sorted(spec.files.values()) == sorted(path.name for path in plain.iterdir())
        assert finished == [list(spec.tasks)] and not spec.flags
        session = self.session(net, tmp_path / "engine", precision)
        expected = {task: value.copy() for task, value in by_tensor(session.run(image, session.tasks)).items()}
        session.close()
        spec.write(plain)
        session = open_engine(plain, threads=1, modes=[spec.tasks])
        for task, value in by_tensor(session.run(image, spec.tasks)).items():
            np.testing.assert_allclose(value, expected[task], rtol=1e-4, atol=1e-4)
        session.close()

    def test_engine_agrees_with_the_simulation(self, tmp_path: Path) -> None:
        """They differ by far less than rounding itself changes: what a search scores is what will run."""
        net, image = small_net("fused"), images(1, seed=5)
        for engine in self.target.traits.engine_precisions:
            for precision in ({"engine": engine}, mixed_precision(net, self.target, engine)):
                ranges = calibrate(net, images(8))
                session = self.session(net, tmp_path / f"{engine}{len(precision)}", precision)
                outputs = by_tensor(session.run(image.numpy(), session.tasks))
                simulated = by_tensor(simulate(net, precision, ranges, self.target.scheme)(image))
                with torch.no_grad():
                    exact = by_tensor(net(image))
                for task, value in simulated.items():
                    rounding = (value - exact[task]).norm().item()
                    apart = float(np.linalg.norm(outputs[task] - value.numpy()))
                    assert apart <= 0.5 * rounding + 1e-4 * exact[task].norm().item(), (precision, task)
                session.close()

    @pytest.mark.parametrize("name", [name for name in device_names() if name != "host"])
    def test_int8_is_what_is_simulated_on_every_device(self, tmp_path: Path, name: str) -> None:
        """Wherever the device's engines run right here; each says what it needs, and only INT8 needs anything."""
        device = load_device(name)
        runtimes = {runtime.name: runtime.precisions for runtime in device.runtimes}
        if "int8" not in runtimes.get(self.target.traits.runtime, ()):
            pytest.skip(f"no INT8 by {self.target.traits.name} on {name}")
        target, net = find_target(self.target.traits.name, device), small_net("fused", "relu6")
        precision = {"engine": "fp32", **dict.fromkeys(net.blocks, "int8")}
        assert {"int8", *target.traits.block_precisions} == {"int8", "float"}
        assert (target.scheme.weight_limit <= EXACT_WEIGHT) == bool(lacking([EXACT_INT8], device.arithmetic))
        assert needs_of(target, {"engine": "fp32"}) == ()
        ranges = calibrate(net, images(8))
        target.build(net, precision, ranges, tmp_path)
        assert EngineSpec.read(tmp_path).needs == needs_of(target, precision)
        if not is_runnable(target, precision):
            with pytest.raises(UserError, match="do not saturate" if needs_of(target, precision) else "open it there"):
                open_engine(tmp_path)
            return
        session, same, apart, rounding = open_engine(tmp_path, threads=1), [], 0.0, 0.0
        simulation = simulate(net, precision, ranges, target.scheme)
        for image in images(4, seed=7)[:, None]:
            outputs = by_tensor(session.run(image.numpy(), session.tasks))
            with torch.no_grad():
                exact = by_tensor(net(image))
            for task, value in by_tensor(simulation(image)).items():
                same.append(outputs[task] == value.numpy())
                apart += float(np.square(outputs[task] - value.numpy()).sum())
                rounding += float((value - exact[task]).square().sum())
        session.close()
        if target.scheme.activation == self.target.scheme.activation:
            assert np.concatenate([each.ravel() for each in same]).mean() >= 0.97
        else:  # ONNX Runtime for x86 rewrites signed INT8, partly in FP32: right, but not to the bit
            assert apart <= 0.25 * rounding

    def test_a_bundle_keeps_every_tasks_metric(self, tmp_path: Path) -> None:
        """Found by its name, held against the net on images: the engine where it runs, else its simulation."""
        net, request = small_net("fused"), ExportRequest(self.target.traits.name, self.target.device)
        samples = samples_for(net, 2)
        manifest = export_bundle(net, "fp32", request, tmp_path / "bundle", Evidence(samples, samples))
        engine = manifest.targets[self.target.traits.name]
        assert engine.checked == ("engine" if is_runnable(self.target, FP32) else "simulation")
        assert list(engine.parity) == [task.name for task in net.tasks]
        assert all(parity.metric_allowed is not None for parity in engine.parity.values())

    def test_an_engine_says_what_it_needs(self, tmp_path: Path) -> None:
        """Of the processor that is to run it."""
        net = small_net()
        for precision in (FP32, mixed_precision(net, self.target, "fp32")):
            self.build(net, tmp_path / str(len(precision)), precision)
            spec = EngineSpec.read(tmp_path / str(len(precision)))
            assert (spec.target, spec.runtime) == (self.target.traits.name, self.target.traits.runtime)
            assert spec.needs == needs_of(self.target, precision)

    def test_the_same_net_gives_the_same_files(self, tmp_path: Path) -> None:
        """Twice into two folders, then again over the first."""
        net = small_net()
        precision = mixed_precision(net, self.target, self.target.traits.engine_precisions[0])
        files = self.build(net, tmp_path / "a", precision)
        assert files == self.build(net, tmp_path / "b", precision) == self.build(net, tmp_path / "a", precision)
        for name in files:
            assert not name.is_absolute()
            one, other = ((tmp_path / folder / name).read_bytes() for folder in "ab")
            differing = sum(a != b for a, b in zip(one, other, strict=True))
            assert differing <= self.unstable_bytes
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(str(name) for name in files)

    def test_an_engine_folder_can_be_moved(self, tmp_path: Path) -> None:
        """It reads nothing outside itself."""
        net, image = small_net(), images(1)
        self.skip_unless_runnable()
        self.build(net, tmp_path / "here")
        shutil.move(tmp_path / "here", tmp_path / "there")
        session = measurer_of(self.target).open(tmp_path / "there", threads=1)
        fixed = image.numpy()
        fixed.flags.writeable = False
        outputs = by_tensor(session.run(fixed, ["depth"]))["depth"].copy()
        np.testing.assert_array_equal(
            by_tensor(session.run(np.asfortranarray(image.numpy()), ["depth"]))["depth"], outputs
        )
        session.close()

    def test_weights_are_stored_once(self, tmp_path: Path) -> None:
        """An engine for every subset is no larger than its weights and its graph."""
        net = small_net("fused", widths=(32, 64, 96, 128))
        files = self.build(net, tmp_path)
        stored = sum((tmp_path / name).stat().st_size for name in files)
        assert stored < 1.5 * emit(net).ByteSize() + 200_000

    def test_an_unknown_layer_is_refused_by_name(self, tmp_path: Path) -> None:
        """Naming the target as well, and leaving nothing that could be opened."""
        net = small_net()
        net.blocks["s1_1"] = nn.Sequential(net.blocks["s1_1"], nn.SELU())
        with pytest.raises(UnsupportedError, match=r"SELU.*blocks\.s1_1") as caught:
            self.build(net, tmp_path)
        assert self.target.traits.name in str(caught.value)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("precision", [{"engine": "fp8"}, {"stem": "int3"}, {"nothing": "float"}])
    def test_a_precision_outside_the_traits_is_refused(self, tmp_path: Path, precision: dict[str, str]) -> None:
        """Before anything is written."""
        with pytest.raises(UserError, match=r"fp8|int3|nothing"):
            self.target.build(small_net(), precision, None, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_int8_without_ranges_is_refused(self, tmp_path: Path) -> None:
        """Naming a block."""
        if "int8" not in self.target.traits.block_precisions:
            pytest.skip("no INT8")
        with pytest.raises(UserError, match="s1_1"):
            self.target.build(small_net(), {"s1_1": "int8"}, None, tmp_path)

    def test_what_a_caller_gets_wrong_is_answered(self, tmp_path: Path) -> None:
        """An unknown task, no task, a wrong image, a closed session."""
        session = self.session(small_net(), tmp_path)
        image = images(1).numpy()
        with pytest.raises(UserError, match="did you mean depth"):
            session.run(image, ["dept"])
        with pytest.raises(UserError, match="at least one"):
            session.run(image, [])
        with pytest.raises(UserError, match="float32"):
            session.run(image[:, :, :8], ["depth"])
        session.close()
        with pytest.raises(UserError, match="closed"):
            session.run(image, ["depth"])
