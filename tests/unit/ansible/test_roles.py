"""Every role says its variables once: argument_specs, defaults and the README's table agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

_ANSIBLE = Path(__file__).parents[3] / "ansible"
_ROLES = sorted(path for path in (_ANSIBLE / "roles").iterdir() if path.is_dir())
_SECRET = re.compile(
    r"(AKIA|ASIA)[A-Z0-9]{16}|BEGIN [A-Z ]*PRIVATE KEY|aws_secret_access_key\s*[:=]\s*[A-Za-z0-9/+]{8}", re.IGNORECASE
)


def options(role: Path) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = document["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", _ROLES, ids=lambda role: role.name)
def test_every_variable_bears_its_roles_name_and_a_meaning(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_")
        assert option["description"].strip()


@pytest.mark.parametrize("role", _ROLES, ids=lambda role: role.name)
def test_defaults_are_those_that_the_argument_specs_state(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    wanted = {name for name, option in options(role).items() if not option.get("required")}

    assert set(defaults) == wanted
    for name, option in options(role).items():
        if "default" in option:
            assert defaults[name] == option["default"], name


@pytest.mark.parametrize("role", _ROLES, ids=lambda role: role.name)
def test_the_readme_lists_exactly_the_variables(role: Path) -> None:
    listed = re.findall(rf"^\| `({role.name}_\w+)` \|", (role / "README.md").read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(options(role))


@pytest.mark.parametrize("site", ["local", "onprem", "cloud"])
def test_every_site_has_hosts_and_unpinned_keys_are_refused(site: str) -> None:
    hosts = yaml.safe_load((_ANSIBLE / "inventories" / site / "hosts.yml").read_text())

    assert set(hosts) <= {"training_hosts", "serving_hosts", "web_fronts"}
    assert "StrictHostKeyChecking=yes" in (_ANSIBLE / "ansible.cfg").read_text()
    assert "host_key_checking = True" in (_ANSIBLE / "ansible.cfg").read_text()


def test_no_secret_lies_in_the_playbooks() -> None:
    texts = {path: path.read_text() for path in _ANSIBLE.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    assert texts
    assert [path for path, text in texts.items() if _SECRET.search(text)] == []
