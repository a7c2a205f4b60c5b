"""HandleReloadConfigRequest: what it accepts, what it refuses, and when it returns."""

from __future__ import annotations

from typing import Any

import client_lab
import pytest
import server_lab


class TestWhatChanges:
    def test_a_new_model_answers_when_the_call_returns(self, operator: Any) -> None:
        operator.add(1)
        operator.reload(operator.entry())
        assert operator.answer() == 1.0

    def test_a_model_that_is_left_out_is_unloaded(self, operator: Any) -> None:
        operator.serve(1)
        operator.reload()
        operator.wait_for({1: "END"})
        found = operator.client.refused(operator.answer)
        assert found == ("NOT_FOUND", f"Servable not found for request: Latest({operator.name})")

    def test_several_models_come_and_go_side_by_side(self, operator: Any) -> None:
        other = f"{operator.name}-other"
        operator.add(1)
        operator.add(2, base="other")
        own, others = operator.entry(), operator.entry(other, operator.home / "other")
        operator.reload(own, others)
        assert (operator.answer(), operator.answer(other)) == (1.0, 2.0)
        operator.reload(others)
        operator.wait_for({1: "END"})
        assert operator.answer(other) == 2.0

    def test_another_policy_takes_effect_at_once(self, operator: Any) -> None:
        operator.serve(1, 2)
        operator.reload(operator.entry(versions=[1]))
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        assert operator.answer() == 1.0

    def test_another_base_path_brings_its_versions(self, operator: Any) -> None:
        operator.serve(1)
        operator.add(2, base="moved")
        operator.reload(operator.entry(base_path=operator.home / "moved"))
        operator.wait_for({2: "AVAILABLE", 1: "END"})
        assert operator.answer() == 2.0

    def test_the_same_configuration_again_changes_nothing(self, operator: Any) -> None:
        operator.serve(1, 2)
        for _ in range(3):
            operator.reload(operator.entry(versions=[1, 2]))
        assert operator.states() == {2: "AVAILABLE", 1: "AVAILABLE"}

    def test_the_deprecated_type_stands_for_the_platform(self, operator: Any) -> None:
        operator.add(1)
        entry = operator.entry(platform="")
        entry.model_type = 1
        operator.reload(entry)
        assert operator.answer() == 1.0

    def test_the_response_says_ok(self, operator: Any) -> None:
        assert operator.reload().status.error_code == 0


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"platform": ""}, "Illegal setting neither ModelServerConfig::model_type"),
            ({"platform": "caffe"}, "Model {name} requests unsupported platform caffe"),
            (
                {"base_path": "relative/path"},
                "Expected model {name} to have an absolute path or URI; got base_path()=relative/path",
            ),
        ],
    )
    def test_an_entry_that_is_wrong(self, operator: Any, change: dict[str, Any], message: str) -> None:
        operator.add(1)
        code, found = operator.client.refused(lambda: operator.reload(operator.entry(**change)))
        assert code == "INVALID_ARGUMENT"
        assert message.replace("{name}", operator.name) in found
        assert operator.states() == {}

    def test_type_and_platform_together(self, operator: Any) -> None:
        operator.add(1)
        entry = operator.entry()
        entry.model_type = 1
        code, found = operator.client.refused(lambda: operator.reload(entry))
        assert code == "INVALID_ARGUMENT"
        assert found.startswith("Illegal setting both ModelServerConfig::model_type (deprecated) and ")

    def test_a_request_log_that_nobody_writes(self, operator: Any) -> None:
        operator.add(1)
        entry = operator.entry()
        entry.logging_config.log_collector_config.type = "any"
        found = operator.client.refused(lambda: operator.reload(entry))
        assert found == ("INVALID_ARGUMENT", "No request-logger-creator provided.")

    def test_a_model_listed_twice(self, operator: Any) -> None:
        operator.add(1)
        found = operator.client.refused(lambda: operator.reload(operator.entry(), operator.entry()))
        assert found == ("INVALID_ARGUMENT", f"Illegal to list model {operator.name} multiple times in config list")

    def test_another_platform_for_a_model_that_is_served(self, operator: Any) -> None:
        operator.serve(1)
        found = operator.client.refused(lambda: operator.reload(operator.entry(platform="caffe")))
        assert found == (
            "INVALID_ARGUMENT",
            f"Illegal to change a model's platform. For model {operator.name} platform was tensorflow "
            "and new platform requested is caffe",
        )
        assert operator.answer() == 1.0

    @pytest.mark.parametrize("kind", ["nothing", "custom"])
    def test_what_is_no_list_of_models(self, operator: Any, kind: str) -> None:
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest()
        if kind == "custom":
            request.config.custom_model_config.SetInParent()
        found = operator.client.refused(lambda: operator.client.model.HandleReloadConfigRequest(request, timeout=60))
        assert found == (
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )

    def test_a_new_model_that_does_not_load_fails_the_call_and_not_the_others(self, operator: Any) -> None:
        (operator.home / "bad/1").mkdir(parents=True)
        operator.add(1)
        bad = f"{operator.name}-bad"
        entries = (operator.entry(), operator.entry(bad, operator.home / "bad"))
        code, found = operator.client.refused(lambda: operator.reload(*entries))
        assert code == "UNKNOWN"
        assert found.startswith("1 model(s) did not become available: {")
        assert f"name: {bad} version: 1}} due to error: NOT_FOUND: " in found
        # The configuration stays applied all the same.
        assert operator.answer() == 1.0
        assert operator.states(bad) == {1: "END"}

    def test_a_new_model_whose_older_version_loads_is_no_failure(self, operator: Any) -> None:
        operator.add(1)
        (operator.home / "own/2").mkdir()
        operator.reload(operator.entry(versions=[1, 2]))
        operator.wait_for({2: "END", 1: "AVAILABLE"})
        assert operator.answer() == 1.0


class TestMetricNames:
    def test_the_answer_says_by_how_much_metrics_grew(self, command: Any, zoo: Any) -> None:
        loads = "/tensorflow/cc/saved_model/load_attempt_count"
        flags = ("--model_config_file={directory}/models",)
        empty = server_lab.config_text()
        with (
            server_lab.started(command, *flags, files={"models": empty}, with_rest=False) as server,
            server_lab.open_channel(server.target) as channel,
        ):
            client = client_lab.Client(rest_port=0, channel=channel)
            entry = server_lab.model_config("plus", zoo / "plus")
            response = client.reload(entry, metric_names=[loads, "/no/such/metric"])
            assert {metric.name: metric.int64_value_increase for metric in response.metric} == {
                loads: 1,
                "/no/such/metric": 0,
            }
            again = client.reload(entry, metric_names=[loads])
            assert [(metric.name, metric.int64_value_increase) for metric in again.metric] == [(loads, 0)]

    def test_without_names_there_are_none(self, operator: Any) -> None:
        assert not operator.reload().metric
