from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugged import install

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.spaces import Design, Plan, Space, load_space, space_names
from edgemtl.tasks import Task, make_task
from edgemtl.traits import TargetTraits

TASKS = (make_task("semseg", "segmentation", classes=("wall", "floor")), make_task("kind", "classification", 3))
TINY = """\
schema: edgemtl.space/1
family: cnn
input: [32, 64]
precision: [float, int8]
cnn:
  stem: {width: [8]}
  stages:
    - {name: a, stride: 2, width: [8, 16], depth: [1, 2], block: [depthwise, fused], expand: [1, 2], kernel: [3, 5]}
  features: [a]
  decoder: {width: [8, 16]}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return load_space(write(tmp_path_factory.mktemp("space"), TINY), TASKS)


@pytest.fixture(scope="module", params=["cnn", "mobilenetv2", "tiny"])
def space(request: pytest.FixtureRequest, tiny: Space) -> Space:
    return tiny if request.param == "tiny" else load_space(request.param, TASKS, (32, 64))


seeds = st.integers(0, 2**63)


def test_the_shipped_spaces_are_found_by_name() -> None:
    assert {"cnn", "mobilenetv2"} <= set(space_names())
    space = load_space("cnn", TASKS)
    assert (space.name, space.size) == ("cnn", (192, 256))
    assert load_space("cnn", TASKS, (64, 96)).plan({}).input_size == (64, 96)


PLUGGED = """
from dataclasses import replace
from edgemtl.spaces import find_family

rows = replace(find_family("cnn"), name="rows")
wrong = rows.spec
"""


def test_a_family_of_another_package_has_spaces(site: Path) -> None:
    for name in ("rows", "wrong"):
        install(site, "edgemtl.families", f"{name} = edgemtl_rows:{name}", PLUGGED)
    space = load_space(write(site, TINY.replace("cnn", "rows")), TASKS)
    assert space.family.name == "rows"
    assert space.largest().cost() == load_space(write(site, TINY), TASKS).largest().cost()
    with pytest.raises(UserError, match="network family 'row': did you mean rows"):
        load_space(write(site, TINY.replace("cnn", "row")), TASKS)
    with pytest.raises(UserError, match=r"'wrong', which edgemtl_rows:wrong brings, cannot be loaded .* not a Family"):
        load_space(write(site, TINY.replace("cnn", "wrong")), TASKS)


def test_choices_come_from_the_file_with_a_precision_a_block(tiny: Space) -> None:
    assert [(c.name, c.options, c.task) for c in tiny.choices] == [
        ("a.width", (8, 16), None),
        ("a.depth", (1, 2), None),
        ("a.expand", (1, 2), None),
        ("a.block", ("depthwise", "fused"), None),
        ("a.kernel", (3, 5), None),
        ("semseg.width", (8, 16), "semseg"),
        ("kind.width", (8, 16), "kind"),
        ("stem.precision", ("float", "int8"), None),
        ("a_1.precision", ("float", "int8"), None),
        ("a_2.precision", ("float", "int8"), None),
        ("semseg_neck.precision", ("float", "int8"), "semseg"),
        ("semseg_body.precision", ("float", "int8"), "semseg"),
        ("semseg_head.precision", ("float", "int8"), "semseg"),
        ("kind_neck.precision", ("float", "int8"), "kind"),
        ("kind_head.precision", ("float", "int8"), "kind"),
        ("engine.precision", ("fp32", "bf16", "fp16"), None),
    ]


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_a_design_survives_its_genome_its_json_and_itself(space: Space, seed: int) -> None:
    design = space.random(random.Random(seed))
    for again in (
        space.decode(space.encode(design)),
        space.design(design),
        space.design(json.loads(json.dumps(dict(design)))),
    ):
        assert again == design
        assert hash(again) == hash(design)
        assert again.key == design.key
        assert again.plan == design.plan
    assert all(
        0 <= gene < len(choice.options) for gene, choice in zip(space.encode(design), space.choices, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_options_that_are_switched_off_change_nothing(space: Space, seed: int) -> None:
    rng = random.Random(seed)
    genome = [rng.randrange(len(choice.options)) for choice in space.choices]
    design = space.decode(genome)
    idle = [n for n, choice in enumerate(space.choices) if not choice.active(design)]
    for position in idle:
        assert space.encode(design)[position] == 0
        genome[position] = rng.randrange(len(space.choices[position].options))
    other = space.decode(genome)
    assert other == design and other.key == design.key and len({other, design}) == 1


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_an_option_that_is_switched_on_makes_another_net(tiny: Space, seed: int) -> None:
    rng = random.Random(seed)
    design = tiny.random(rng)
    choice = rng.choice([c for c in tiny.choices if c.active(design)])
    other = tiny.design({**design, choice.name: next(o for o in choice.options if o != design[choice.name])})
    assert other != design and other.key != design.key
    assert (other.plan, other.precision) != (design.plan, design.precision)


def test_every_net_of_the_tiny_space_is_one_design(tiny: Space) -> None:
    architecture = [c for c in tiny.choices if not c.name.endswith(".precision")]
    found: dict[Design, object] = {}
    for number in range(2 ** len(architecture)):
        design = tiny.design({c.name: c.options[number >> index & 1] for index, c in enumerate(architecture)})
        assert found.setdefault(design, design.plan) == design.plan
    assert len(set(found.values())) == len(found) == 2**4 * (1 + 2) * 2  # a kernel for depthwise blocks only


def test_designs_of_two_spaces_differ_where_their_options_do(tiny: Space) -> None:
    other = load_space("cnn", TASKS)
    assert tiny.smallest() != other.smallest()
    assert tiny.smallest().key != other.smallest().key
    assert tiny.smallest() != dict(tiny.smallest())


def test_precision_is_of_the_blocks_that_are_there(tiny: Space) -> None:
    shallow = tiny.design({"a.depth": 1, "a_2.precision": "int8", "a_1.precision": "int8"})
    assert "a_2" not in shallow.precision
    assert shallow.precision["a_1"] == "int8"
    assert shallow["a_2.precision"] == "float"
    assert tiny.design({"a.depth": 2, "a_2.precision": "int8"}).precision["a_2"] == "int8"
    assert set(tiny.largest("int8").precision.values()) == {"fp32", "int8"}


def test_a_path_is_the_trunk_and_the_task_s_own_blocks(tiny: Space) -> None:
    design = tiny.design({"a.depth": 2, "kind_neck.precision": "int8"})
    assert design.path("kind") == {
        "stem": "float", "a_1": "float", "a_2": "float", "kind_neck": "int8", "kind_head": "float",
    }  # fmt: skip
    with pytest.raises(UserError, match="did you mean semseg"):
        design.path("semsek")


def test_smallest_middle_and_largest_grow(space: Space) -> None:
    costs = [design.cost() for design in (space.smallest(), space.middle(), space.largest())]
    assert costs[0].flops < costs[1].flops <= costs[2].flops
    assert costs[0].params < costs[1].params <= costs[2].params
    assert space.largest("int8").cost().weight_bytes < 0.5 * costs[2].weight_bytes


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_no_design_is_outside_smallest_and_largest(space: Space, seed: int) -> None:
    cost = space.random(random.Random(seed)).cost()
    assert cost.params <= space.largest().cost().params
    assert space.smallest().cost(["semseg", "kind"]).flops <= cost.flops


def test_a_cost_is_counted_once_for_each_choice_of_tasks(space: Space) -> None:
    design = space.smallest()
    scopes = (None, "kind", ["semseg"], ["semseg", "kind"])
    costs = [design.cost(scope) for scope in scopes]
    assert all(design.cost(scope) is cost for scope, cost in zip(scopes, costs, strict=True))
    assert costs == [design.plan.cost(design.precision, scope) for scope in scopes]
    assert costs[1].params < costs[0].params


def test_wrong_options_are_answered_with_the_allowed_ones(tiny: Space) -> None:
    with pytest.raises(UserError, match=r"'a\.widht'.*did you mean a\.width"):
        tiny.design({"a.widht": 8})
    with pytest.raises(UserError, match=r"a\.width cannot be 12: allowed: 8, 16"):
        tiny.design({"a.width": 12})
    with pytest.raises(UserError, match="cannot be 'int4': allowed: float, int8"):
        tiny.design({"stem.precision": "int4"})


def test_a_target_narrows_the_precisions_to_its_own(tiny: Space) -> None:
    def traits(block: tuple[str, ...], engine: tuple[str, ...]) -> TargetTraits:
        return TargetTraits("some", "Some runtime", block, engine, 1, "some", "some")

    floats = tiny.for_target(traits(("float",), ("fp32",)))
    assert not [choice for choice in floats.choices if choice.name.endswith(".precision")]
    assert set(floats.random(random.Random(0)).precision.values()) == {"fp32", "float"}
    both = tiny.for_target(traits(("float", "int8"), ("fp32",)))
    assert [c.name for c in both.choices] == [c.name for c in tiny.choices if c.name != "engine.precision"]
    assert floats.fingerprint == both.fingerprint == tiny.fingerprint


def test_identity_is_what_weights_depend_on(tmp_path: Path, tiny: Space) -> None:
    assert load_space(write(tmp_path, TINY), TASKS, (64, 64)).fingerprint == tiny.fingerprint
    assert load_space(write(tmp_path, TINY.replace("[float, int8]", "[float]")), TASKS).fingerprint == tiny.fingerprint
    renamed = (make_task("parts", "segmentation", classes=("wall", "floor")), TASKS[1])
    more = (make_task("semseg", "segmentation", classes=("wall", "floor", "door")), TASKS[1])
    others = [
        load_space(write(tmp_path, TINY.replace("[1, 2], kernel", "[1, 3], kernel")), TASKS),
        *(load_space(write(tmp_path, TINY), tasks) for tasks in (renamed, more, TASKS[:1])),
    ]
    assert len({tiny.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_block_of_another_kind_is_another_identity(tiny: Space) -> None:
    """Weights are of what a block computes, not of their shapes alone."""
    plan = tiny.family.plan

    def otherwise(*arguments: Any) -> Plan:
        made = plan(*arguments)
        return replace(made, blocks=tuple(replace(each, kind="other") for each in made.blocks))

    other = replace(tiny, family=replace(tiny.family, plan=otherwise))
    assert other.largest().cost() == tiny.largest().cost()
    assert other.fingerprint != tiny.fingerprint == replace(tiny).fingerprint


def test_an_identity_stays_what_it_was() -> None:
    """A supernet file carries it: what is already trained must go on to load."""
    tasks = (
        make_task("semseg", "segmentation", classes=tuple("abcdef")),
        make_task("depth", "depth"),
        make_task("kind", "classification", 2),
    )
    assert load_space("cnn", tasks).fingerprint.startswith("69d026bdc099")
    assert load_space("mobilenetv2", tasks).fingerprint.startswith("4b35c8aa640d")


def test_a_supernet_has_the_largest_design_s_parameters(tiny: Space) -> None:
    supernet = Supernet.of(tiny)
    with torch.device("meta"):
        largest = dict(MultiTaskNet(tiny.largest().plan, TASKS).named_parameters())
    assert all(supernet.shared[name].shape == parameter.shape for name, parameter in largest.items())
    assert not [name for name in supernet.shared if "precision" in name]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stem: {width: [8]}", "stem: {widht: [8]}", "stem.width: Field required"),
        ("stem: {width: [8]}", "stem: {width: [8], colour: 3}", r"stem.colour: .*not permitted \(given: 3\)"),
        ("width: [8, 16], depth", "width: [8, 12], depth", r"stages.0.width: .*multiples of 8"),
        ("width: [8, 16], depth", "width: [16, 8], depth", r"stages.0.width: .*ascending order"),
        ("stride: 2", "stride: 3", "stages.0.stride: Input should be 1 or 2"),
        ("kernel: [3, 5]", "kernel: [3, 4]", "stages.0.kernel"),
        ("features: [a]", "features: [b]", "features name no stage: b; stages are a"),
        ("stride: 2", "stride: 1", r"features have strides \[2\]"),
        ("schema: edgemtl.space/1", "schema: edgemtl.space/9", "schema 'edgemtl.space/9', this version reads"),
        ("schema: edgemtl.space/1\n", "", "has schema None, this version reads 'edgemtl.space/1': compare"),
        ("precision:", "precison:", "unknown key in space .* 'precison': did you mean precision"),
        ("precision:", "7:", "Keys should be strings"),
        ("[float, int8]", "[float, int4]", "precision.1: Input should be 'float', 'int12', 'int10' or 'int8'"),
        ("[float, int8]", "[]", "precision: .*at least 1 item"),
        ("family: cnn", "family: cmm", "unknown network family 'cmm': allowed: cnn"),
        ("input: [32, 64]", "input: [32]", r"input\.1: Field required"),
        ("input: [32, 64]", "input: [32, 65]", "input size 32x65: both sides must be positive multiples of 32"),
        ("cnn:\n", "vit:\n", "valid dictionary or instance"),
        ("cnn:\n", "cnn: [\n", "not valid YAML"),
        ("family: cnn", "family: !!python/object/apply:os.getcwd []", "line 2, column 9: not valid YAML"),
    ],
)
def test_a_wrong_file_is_answered_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TINY
    with pytest.raises(UserError, match=message) as caught:
        load_space(write(tmp_path, TINY.replace(old, new, 1)), TASKS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "width: [8, 16], depth",
            f"width: [{', '.join(str(8 * n) for n in range(1, 4000))}], depth",
            "at most 64 items",
        ),
        ("width: [8, 16], depth", f"width: [{', '.join(['8'] * 200_000)}], depth", "larger than 65536 bytes"),
        ("width: [8, 16], depth", "width: [8, 100000000], depth", "less than or equal to 16384"),
        ("depth: [1", "depth: [100000000, 100000001", "less than or equal to 64"),
        ("input: [32, 64]", "input: [32, 320000]", "less than or equal to 8192"),
        ("name: a,", "name: a.b,", "should match pattern"),
        ("name: a,", 'name: "\\e[31m",', "should match pattern"),
        ("width: [8, 16], depth", "width: [16384], depth", "parameters, 1,000,000,000 at most"),
    ],
)
def test_limits_are_told_with_their_number(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TINY
    with pytest.raises(UserError, match=message) as caught:
        load_space(write(tmp_path, TINY.replace(old, new, 1)), TASKS)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="must be a mapping"):
        load_space(write(tmp_path, text), TASKS)


def test_wrong_names_sizes_and_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown space 'mobilnetv2': did you mean mobilenetv2"):
        load_space("mobilnetv2", TASKS)
    with pytest.raises(UserError, match="unknown space"):
        load_space(str(tmp_path / "none.yaml"), TASKS)
    for size in ((0, 32), (33, 32), (32, -32)):
        with pytest.raises(UserError, match=f"input size {size[0]}x{size[1]}"):
            load_space("cnn", TASKS, size)
    no_tasks: tuple[Task, ...] = ()
    with pytest.raises(UserError, match="at least one task"):
        load_space("cnn", no_tasks)


@pytest.mark.parametrize("name", ["stem", "a"])
def test_a_task_called_like_a_part_of_the_trunk_is_refused(tmp_path: Path, name: str) -> None:
    """Its decoder's width would be the stage's."""
    with pytest.raises(UserError, match=r"is called like a part of the trunk \(stem, a\): rename it"):
        load_space(write(tmp_path, TINY), (make_task(name, "classification", 3),))
