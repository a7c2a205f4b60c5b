"""Labels: names that move between versions, and never to one that is not there."""

from __future__ import annotations

from typing import Any

import pytest
import server_lab


def refusal_of(version: int, model: str) -> tuple[str, str]:
    return (
        "FAILED_PRECONDITION",
        f"Request to assign label to version {version} of model {model}, "
        "which is not currently available for inference",
    )


def test_a_label_leads_to_its_version(operator: Any) -> None:
    operator.serve(1, 2, labels={"stable": 1, "canary": 2})
    assert (operator.answer(label="stable"), operator.answer(label="canary")) == (1.0, 2.0)


def test_a_label_moves_after_its_version_was_loaded(operator: Any) -> None:
    operator.serve(1, labels={"stable": 1})
    operator.serve(1, 2, labels={"stable": 1})
    assert operator.answer(label="stable") == 1.0
    operator.reload(operator.entry(versions=[1, 2], labels={"stable": 2}))
    assert operator.answer(label="stable") == 2.0


def test_a_label_in_use_does_not_move_to_a_version_that_is_not_available(operator: Any) -> None:
    operator.serve(1, labels={"stable": 1})
    operator.add(2)
    both_at_once = operator.entry(versions=[1, 2], labels={"stable": 2})
    found = operator.client.refused(lambda: operator.reload(both_at_once))
    assert found == refusal_of(2, operator.name)
    assert operator.answer(label="stable") == 1.0
    assert operator.states() == {1: "AVAILABLE"}


def test_of_a_refused_config_no_label_is_taken(operator: Any) -> None:
    operator.serve(1, 2, labels={"stable": 1, "canary": 2})
    mixed = operator.entry(versions=[1, 2], labels={"stable": 2, "canary": 9})
    assert operator.client.refused(lambda: operator.reload(mixed)) == refusal_of(9, operator.name)
    assert (operator.answer(label="stable"), operator.answer(label="canary")) == (1.0, 2.0)


def test_a_label_that_was_left_out_is_unknown(operator: Any) -> None:
    operator.serve(1, 2, labels={"stable": 1, "canary": 2})
    operator.reload(operator.entry(versions=[1, 2], labels={"canary": 2}))
    found = operator.client.refused(lambda: operator.answer(label="stable"))
    assert found == ("INVALID_ARGUMENT", "Unrecognized servable version label: stable")
    assert operator.answer(label="canary") == 2.0


def test_with_the_flag_a_new_label_may_point_at_what_is_not_there(operator: Any) -> None:
    operator.serve(1, labels={"early": 2})
    found = operator.client.refused(lambda: operator.answer(label="early"))
    assert found == ("NOT_FOUND", f"Servable not found for request: Specific({operator.name}, 2)")
    operator.serve(1, 2, labels={"early": 2})
    assert operator.answer(label="early") == 2.0


def test_a_label_of_a_version_that_was_unloaded_finds_nothing(operator: Any) -> None:
    operator.serve(1, 2, labels={"stable": 1})
    # An entry of its own, so that the label is not checked again.
    (operator.home / "own/1").rename(operator.home / "own/.1")
    operator.reload(operator.entry(versions=[1, 2], labels={"stable": 1}))
    operator.wait_for({2: "AVAILABLE", 1: "END"})
    found = operator.client.refused(lambda: operator.answer(label="stable"))
    assert found == ("NOT_FOUND", f"Servable not found for request: Specific({operator.name}, 1)")


def test_metadata_honours_labels_and_status_does_not_look_at_them(operator: Any) -> None:
    operator.serve(1, 2, labels={"stable": 1})
    metadata = operator.client.metadata(operator.name, "signature_def", label="stable")
    assert metadata.model_spec.version.value == 1
    assert list(operator.client.status(operator.name, label="stable")) == [2, 1]


@pytest.mark.parametrize(
    ("segment", "version"),
    [("stable", 1), ("canary", 2), ("an%20odd%20label!", 3), ("%73table", 1)],
)
def test_labels_stand_in_the_path(standing: Any, segment: str, version: int) -> None:
    answer = standing.rest(f"/v1/models/plus/labels/{segment}:predict", {"instances": [0.0]})
    assert (answer.code, answer.json) == (200, {"predictions": [float(version)]})
    metadata = standing.rest(f"/v1/models/plus/labels/{segment}/metadata")
    assert metadata.json["model_spec"]["version"] == str(version)


class TestAtTheStart:
    def config(self, zoo: Any, **labels: int) -> str:
        text: str = server_lab.config_text(server_lab.model_config("plus", zoo / "plus", wants_all=True, labels=labels))
        return text

    def test_without_the_flag_a_label_in_the_first_configuration_is_refused(self, command: Any, zoo: Any) -> None:
        ended = server_lab.run_to_the_end(
            command, "--model_config_file={directory}/models", files={"models": self.config(zoo, stable=1)}
        )
        assert ended.exit_code == 255
        code, message = refusal_of(1, "plus")
        assert f"Failed to start server. Error: {code}: {message}" in ended.stdout

    def test_without_the_flag_a_reload_cannot_label_what_it_brings(self, command: Any, zoo: Any, tmp_path: Any) -> None:
        import client_lab

        resident = server_lab.model_config("half_plus_two", zoo / "half_plus_two")
        flags = ("--model_config_file={directory}/models",)
        files = {"models": server_lab.config_text(resident)}
        with (
            server_lab.started(command, *flags, files=files) as server,
            server_lab.open_channel(server.target) as channel,
        ):
            client = client_lab.Client(rest_port=server.rest_port, channel=channel)
            entry = {"name": "plus", "base_path": zoo / "plus", "wants_all": True}
            labelled = server_lab.model_config(**entry, labels={"stable": 1})
            found = client.refused(lambda: client.reload(resident, labelled))
            assert found == refusal_of(1, "plus")
            client.reload(resident, server_lab.model_config(**entry))
            client.wait_for("plus", {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"})
            client.reload(resident, labelled)
            response = client.predict("plus", {"x": [0.0]}, label="stable")
            assert response.model_spec.version.value == 1
