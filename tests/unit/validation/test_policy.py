from __future__ import annotations

import re
from pathlib import Path

import pytest

from artifact_sync.canonical import FrozenModel
from artifact_sync.errors import RefusedError, SettingsError
from validation.checks.policy import Policy, load_policy

SMALL = '[accuracy]\ntest = "superiority"\nalpha = 0.05\nminimum_photos = 100\n'
METRIC = '[[metrics]]\nname = "{}"\ntest = "superiority"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_the_example_that_is_shipped_is_a_policy(repository: Path) -> None:
    policy = load_policy(repository / "validation/templates/policy.toml")
    assert policy.accuracy.test == "superiority"
    assert policy.has_floor
    assert Policy.from_json(policy.to_json()) == policy


def test_all_that_the_example_leaves_off_can_be_taken_into_use(tmp_path: Path, repository: Path) -> None:
    text = (repository / "validation/templates/policy.toml").read_text()
    switched_on = re.sub(r"^# (\w+ = |\[+\w+\]+$)", r"\1", text, flags=re.MULTILINE)
    switched_on = switched_on.replace('test = "superiority"', 'test = "non-inferiority"')
    policy = load_policy(written(tmp_path, switched_on))
    assert policy.top_k == 5
    assert policy.costs is not None
    assert policy.costs.pairs == {"cat": {"dog": 20.0}}
    assert policy.model_fields_set == set(Policy.model_fields)
    for name in policy.model_fields_set:
        table = getattr(policy, name)
        for row in table if isinstance(table, tuple) else (table,):
            if isinstance(row, FrozenModel):
                assert row.model_fields_set == set(type(row).model_fields), name


def test_no_policy_is_a_refusal_that_shows_the_way(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"no policy_path is set.*templates/policy\.toml is an example") as refused:
        load_policy(None)
    assert refused.value.exit_code == 3
    with pytest.raises(RefusedError, match=r"nothing\.toml does not exist"):
        load_policy(tmp_path / "nothing.toml")


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"accuracy\.minimum_photo is not known; did you mean minimum_photos\?"):
        load_policy(written(tmp_path, SMALL + "minimum_photo = 3\n"))
    with pytest.raises(SettingsError, match=r"limit is not known; did you mean limits\?"):
        load_policy(written(tmp_path, SMALL + "[limit]\nsize_bytes = 3\n"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[accuracy", "is not TOML"),
        ("", "accuracy is missing"),
        ('[accuracy]\ntest = "superiority"\nminimum_photos = 100\n', r"accuracy\.alpha is missing"),
        (SMALL.replace("0.05", "0.9"), r"accuracy\.alpha: .*less than or equal to 0\.5"),
        (SMALL.replace("superiority", "non-inferiority"), "needs a margin"),
        (SMALL + "margin = 0.01\n", '"superiority" takes none'),
        (SMALL + "[holdout]\nsha256 = 'abc'\n", r"holdout\.sha256"),
        (SMALL + "[per_slice]\nminimum_photos = 5\n", "a margin, an accuracy_floor or both must be set"),
        (SMALL + "[per_slice]\nminimum_photos = 5\nmargin = 0.1\ncolumns = ['a', 'a']\n", "each be named once"),
        (SMALL + METRIC.format("macro_f1") + "margin = 0.1\n", '"superiority" takes none'),
        (SMALL + METRIC.format("macro_f1") + "floor = 1.5\n", "the floor of macro_f1 is a share"),
        (SMALL + METRIC.format("macro_f1") * 2, "metrics must each be named once"),
        (SMALL + METRIC.format("mean_cost"), r"mean_cost needs the table \[costs\]"),
        (SMALL + METRIC.format("f1"), r"metrics\.0\.name: .*macro_f1"),
        (SMALL + "[[metrics]]\nnom = 1\n", r"metrics\.0\.nom is not known; did you mean name\?"),
        (SMALL + "[costs.pairs.cat]\ncat = 1\n", r"a right answer costs nothing: leave out pairs\.cat\.cat"),
        (SMALL + "[budget]\ntries = 2\npromotions = 3\n", "promotions cannot be more than tries"),
    ],
)
def test_a_policy_that_says_too_little_or_nonsense_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_policy(written(tmp_path, text))


def test_comments_and_order_do_not_change_what_is_demanded(tmp_path: Path) -> None:
    one = load_policy(written(tmp_path, SMALL))
    other = load_policy(
        written(tmp_path, '# why\n[accuracy]\nminimum_photos = 100\nalpha = 0.05 # usual\ntest = "superiority"\n')
    )
    assert one.sha256 == other.sha256
    assert not one.has_floor
