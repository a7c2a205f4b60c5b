"""Discovery, policies and the transition: the rules without threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.embedded_server.discovery import ServedModel, VersionPolicy, choose_versions, find_versions
from serving.embedded_server.server_config import read_config_file
from serving.embedded_server.status import Code, StatusError
from serving.embedded_server.transition import Stage, Step, availability_preserving, resource_preserving

NUMBERS = st.integers(0, 6)


def served(base_path: Path) -> ServedModel:
    return ServedModel(name="digits", base_path=base_path)


def test_names_that_are_wholly_integers_are_versions_whatever_else_lies_there(tmp_path: Path) -> None:
    for name in ("1", "00000123", "0", "v4", "0x6", ".5", "tmp-2", "3.old", "-7", "٣", str(2**63), str(2**63 - 1)):
        (tmp_path / name).mkdir()
    assert set(find_versions(served(tmp_path))) == {1, 123, 0, 2**63 - 1}


def test_of_two_names_for_one_number_the_last_in_order_counts(tmp_path: Path) -> None:
    for name in ("001", "01", "1"):
        (tmp_path / name).mkdir()
    assert find_versions(served(tmp_path)) == {1: tmp_path / "1"}


def test_a_base_path_that_is_missing_is_an_error_and_not_an_empty_listing(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match=r"Could not find base path .*nowhere for servable digits") as caught:
        find_versions(served(tmp_path / "nowhere"))
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), [9, 4, 1]),
        (VersionPolicy(latest=1), [9]),
        (VersionPolicy(latest=2), [9, 4]),
        (VersionPolicy(latest=0), [9]),
        (VersionPolicy(specific=(1, 4)), [1, 4]),
        (VersionPolicy(specific=(5, 9)), [9]),
        (VersionPolicy(specific=()), []),
    ],
)
def test_policies_choose(policy: VersionPolicy, chosen: list[int]) -> None:
    found = {version: Path(f"/models/{version}") for version in (1, 4, 9)}
    assert choose_versions(found, policy) == {version: found[version] for version in chosen}


def test_a_new_version_is_loaded_before_the_old_one_goes() -> None:
    assert availability_preserving({1: Stage.READY, 2: Stage.NEW}, {2}) == Step("load", 2)
    assert availability_preserving({1: Stage.READY, 2: Stage.LOADING}, {2}) is None
    assert availability_preserving({1: Stage.READY, 2: Stage.READY}, {2}) == Step("unload", 1)


def test_a_version_that_failed_leaves_the_old_one_alone() -> None:
    assert availability_preserving({1: Stage.READY, 2: Stage.ENDED}, {2}) is None


def test_of_several_unwanted_versions_one_is_kept_until_a_wanted_one_is_ready() -> None:
    assert availability_preserving({1: Stage.READY, 2: Stage.READY, 3: Stage.LOADING}, {3}) == Step("unload", 1)
    assert availability_preserving({1: Stage.ENDED, 2: Stage.READY, 3: Stage.LOADING}, {3}) is None


def test_when_nothing_is_wanted_everything_goes() -> None:
    assert availability_preserving({1: Stage.READY, 2: Stage.READY}, set()) == Step("unload", 1)


def test_the_highest_new_version_loads_first() -> None:
    assert availability_preserving({1: Stage.NEW, 3: Stage.NEW, 2: Stage.NEW}, {1, 2, 3}) == Step("load", 3)


@given(
    stages=st.dictionaries(NUMBERS, st.sampled_from(list(Stage))),
    wanted=st.frozensets(NUMBERS),
    outcomes=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_from_any_state_it_ends_and_never_stops_answering_on_the_way(
    stages: dict[int, Stage], wanted: frozenset[int], outcomes: list[bool]
) -> None:
    stages = dict.fromkeys(wanted, Stage.NEW) | stages
    was_answering = Stage.READY in stages.values()
    for _, does_load in zip(range(20), outcomes, strict=True):
        step = availability_preserving(stages, wanted)
        if step is None:
            break
        if step.action == "load":
            assert step.version in wanted
            stages[step.version] = Stage.READY if does_load else Stage.ENDED
        else:
            assert step.version not in wanted
            stages[step.version] = Stage.UNLOADING
        if wanted and was_answering:
            assert Stage.READY in stages.values()
    assert availability_preserving(stages, wanted) is None
    if any(stages.get(version) is Stage.READY for version in wanted):
        assert not [v for v, stage in stages.items() if stage is Stage.READY and v not in wanted]


def test_resource_preserving_loads_only_when_the_old_ones_are_gone() -> None:
    assert resource_preserving({1: Stage.READY, 2: Stage.NEW}, {2}) == Step("unload", 1)
    assert resource_preserving({1: Stage.UNLOADING, 2: Stage.NEW}, {2}) is None
    assert resource_preserving({1: Stage.LOADING, 2: Stage.NEW}, {2}) is None
    assert resource_preserving({1: Stage.ENDED, 2: Stage.NEW}, {2}) == Step("load", 2)


@given(stages=st.dictionaries(NUMBERS, st.sampled_from(list(Stage))), wanted=st.frozensets(NUMBERS))
def test_resource_preserving_ends_with_nothing_unwanted_in_memory(
    stages: dict[int, Stage], wanted: frozenset[int]
) -> None:
    stages = dict.fromkeys(wanted, Stage.NEW) | stages
    for _ in range(20):
        step = resource_preserving(stages, wanted)
        if step is None:
            break
        if step.action == "load":
            assert not [v for v, stage in stages.items() if stage is Stage.READY and v not in wanted]
        stages[step.version] = Stage.READY if step.action == "load" else Stage.ENDED
    assert resource_preserving(stages, wanted) is None
    assert not [v for v, stage in stages.items() if stage is Stage.READY and v not in wanted]


def test_a_config_file_is_read_with_policies_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        """model_config_list {
          config { name: "a" base_path: "/m/a" model_platform: "tensorflow" }
          config { name: "b" base_path: "/m/b" model_type: TENSORFLOW
                   model_version_policy { all {} } version_labels { key: "stable" value: 4 } }
          config { name: "c" base_path: "/m/c" model_platform: "tensorflow"
                   model_version_policy { specific { versions: 1 versions: 3 } } }
          config { name: "d" base_path: "/m/d" model_platform: "tensorflow"
                   model_version_policy { latest { num_versions: 2 } } }
        }"""
    )
    assert read_config_file(path) == (
        ServedModel("a", Path("/m/a"), VersionPolicy(latest=1)),
        ServedModel("b", Path("/m/b"), VersionPolicy(), {"stable": 4}),
        ServedModel("c", Path("/m/c"), VersionPolicy(specific=(1, 3))),
        ServedModel("d", Path("/m/d"), VersionPolicy(latest=2)),
    )


def test_an_empty_file_says_nothing_and_an_empty_list_says_no_models(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("# nothing yet\n")
    assert read_config_file(path) is None
    path.write_text("model_config_list {}\n")
    assert read_config_file(path) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config { ", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        ("model_list {}", "Error parsing text-format"),
        ('model_config_list { config { name: "a" base_path: "/a" } }', "Illegal setting neither"),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_type: OTHER model_platform: "tensorflow" } }',
            "Illegal setting both",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "onnx" } }',
            "Model a requests unsupported platform onnx",
        ),
        (
            'model_config_list { config { name: "a" base_path: "a" model_platform: "tensorflow" } }',
            "absolute path or URI; got base_path",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" logging_config {} } }',
            "No request-logger-creator provided.",
        ),
    ],
)
def test_config_files_that_are_wrong_are_refused_with_the_real_servers_words(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(StatusError, match=message) as caught:
        read_config_file(path)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_config_file_that_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="Cannot read the model config file"):
        read_config_file(tmp_path / "nowhere")
