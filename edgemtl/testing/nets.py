"""Conformance suite for nets of tasks: inherit `TaskNetConformance` and provide the net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.models import TaskNet
from edgemtl.tasks import by_tensor
from edgemtl.testing.examples import images

__all__ = ["TaskNetConformance"]


class TaskNetConformance:
    """The tests of one net: a subclass has a fixture `net` that gives it, in evaluation mode."""

    @pytest.fixture
    def net(self) -> TaskNet:
        """The net."""
        raise NotImplementedError("give the conformance suite a net: a fixture called net")

    @pytest.mark.parametrize("count", [1, 3])
    def test_every_task_has_its_declared_outputs_for_any_batch(self, net: TaskNet, count: int) -> None:
        """Names, channels and rank are those that the task declares, in FP32."""
        outputs = run(net, count)
        assert list(outputs) == [tensor for task in net.tasks for tensor in task.tensors.values()]
        for task in net.tasks:
            for output in task.outputs:
                value = outputs[task.tensors[output.name]]
                assert value.shape == (count, output.channels, *(net.input_size if output.dense else ()))
                assert value.dtype == torch.float32

    def test_an_image_gives_the_same_again_alone_and_in_a_batch(self, net: TaskNet) -> None:
        """No randomness, no state between calls, no statistics of the batch."""
        whole, again = run(net, 3), run(net, 3)
        for name, value in whole.items():
            assert torch.equal(value, again[name])
        for name, value in run(net, 1).items():
            torch.testing.assert_close(value, whole[name][:1], rtol=1e-4, atol=1e-4)

    def test_a_subset_gives_what_the_whole_gives(self, net: TaskNet) -> None:
        """A subset serves its own tasks alone, with parameters of the whole."""
        whole = run(net)
        for task in net.tasks:
            subset = net.subset([task.name])
            assert [each.name for each in subset.tasks] == [task.name]
            for name, value in run(subset).items():
                torch.testing.assert_close(value, whole[name])
        shared = {parameter.data_ptr() for parameter in net.parameters()}
        assert {parameter.data_ptr() for parameter in net.subset([net.tasks[0].name]).parameters()} <= shared

    def test_a_task_that_it_does_not_have_is_refused(self, net: TaskNet) -> None:
        """A wrong name is a mistake of the user's."""
        with pytest.raises(UserError, match="unknown task 'nothing'"):
            net.subset(["nothing"])

    def test_a_copy_gives_the_same_and_has_parameters_of_its_own(self, net: TaskNet) -> None:
        """Changes to a copy leave the net as it is."""
        before, copy = run(net), net.copy()
        assert not copy.training
        torch.testing.assert_close(run(copy), before)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(1)
        torch.testing.assert_close(run(net), before)
        assert type(copy.with_channels({})) is type(net)

    def test_blocks_belong_to_tasks_of_the_net(self, net: TaskNet) -> None:
        """A block is one task's, or several tasks'."""
        assert set(net.block_tasks.values()) <= {None, *(task.name for task in net.tasks)}


def run(net: TaskNet, count: int = 2) -> dict[str, Tensor]:
    """Outputs of the net for the first `count` of one series of images, by the names of tensors."""
    with torch.no_grad():
        return by_tensor(net(images(3, net.input_size)[:count]))
