"""REST of the embedded server as a process, with real models: every method, hostile bodies, its memory."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from serving.model_server import ModelConfig
from serving.server_process import ServerProcess

COMMAND = (sys.executable, "-m", "serving.embedded_server")
HALF = "/v1/models/half"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def models(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("serving_models", repository / "tests/serving_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Api:
    """One connection that is kept, so that each test shows that the ones before did it no harm."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, content, names)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        status, content = self.ask("POST", path, body, **headers)
        return status, json.loads(content)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def process(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    base = tmp_path_factory.mktemp("models")
    models.half_plus_two(base / "half/7")
    models.many_types(base / "types/1")
    models.strings(base / "strings/1")
    models.matrix_half_plus_two(base / "matrix/1")
    models.counter(base / "counter/1")
    models.wide(base / "wide/1")
    names = {"half": 7, "types": 1, "strings": 1, "matrix": 1, "counter": 1, "wide": 1}
    configs = tuple(
        ModelConfig(name, str(base / name), (version,), {"stable": version} if name == "half" else {})
        for name, version in names.items()
    )
    flags = ("--rest_api_timeout_in_ms=120000",)
    with ServerProcess(configs, command=COMMAND, flags=flags, is_rest_enabled=True) as found:
        yield found


@pytest.fixture
def api(process: ServerProcess) -> Iterator[Api]:
    found = Api(process.rest_port)
    yield found
    assert found.post(f"{HALF}:predict", {"instances": [1.0, 2.0]}) == (200, {"predictions": [2.5, 3.0]})
    found.close()


class TestMethods:
    @pytest.mark.parametrize("where", ["", "/versions/7", "/labels/stable"])
    def test_predict_in_rows_and_columns(self, api: Api, where: str) -> None:
        assert api.post(f"{HALF}{where}:predict", {"instances": [[2], [4]]})[1] == {"predictions": [[3.0], [4.0]]}
        assert api.post(f"{HALF}{where}:predict", {"inputs": {"x": [2, 4]}})[1] == {"outputs": [3.0, 4.0]}

    def test_the_layout_of_the_answer(self, api: Api) -> None:
        status, content = api.ask("POST", f"{HALF}:predict", {"instances": [2, 3]})
        assert (status, content) == (200, b'{\n    "predictions": [3.0, 3.5\n    ]\n}')

    def test_infinities_and_nan(self, api: Api) -> None:
        status, content = api.ask("POST", f"{HALF}:predict", b'{"instances": [Infinity, -Inf, NaN, 1e39]}')
        assert (status, b"[Infinity, -Infinity, NaN, Infinity\n" in content) == (200, True)

    def test_classify(self, api: Api) -> None:
        body = {"signature_name": "classify_x2_to_y3", "examples": [{"x": 1.0, "x2": 2.0}, {"x": 1.0}]}
        status, found = api.post(f"{HALF}:classify", body)
        expected = [[["y3", 4.0], ["minus", -4.0]], [["y3", 3.0], ["minus", -3.0]]]
        assert (status, found) == (200, {"results": expected})

    def test_regress_with_context(self, api: Api) -> None:
        body = {"signature_name": "regress_x_to_y", "context": {"x": 8.0}, "examples": [{}, {"x": 2.0}]}
        assert api.post(f"{HALF}:regress", body) == (200, {"results": [6.0, 3.0]})

    def test_classify_and_regress_errors(self, api: Api) -> None:
        status, found = api.post(f"{HALF}:classify", {"signature_name": "none", "examples": [{"x": 1.0}]})
        assert (status, found["error"]) == (400, "No signature was found with the name: none")
        status, found = api.post(f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": [{}]})
        assert status == 400

    def test_strings_and_bytes(self, api: Api) -> None:
        status, found = api.post("/v1/models/strings:predict", {"instances": ["é", {"b64": "/w=="}, ""]})
        rows = found["predictions"]
        assert status == 200
        assert [row["length"] for row in rows] == [2, 1, 0]
        assert [row["echo_bytes"] for row in rows] == [{"b64": "w6k="}, {"b64": "/w=="}, {"b64": ""}]
        assert rows[0]["echo"] == "é"

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("float32", [1.5, -0.0, 3e38]),
            ("float64", [0.1, 1e300]),
            *((name, [1, 127]) for name in ("int8", "int16", "int32", "uint8")),
            ("int64", [-(2**63), 2**63 - 1]),
            ("uint32", [0, 2**32 - 1]),
            ("uint64", [0, 2**64 - 1]),
            ("bool", [True, False]),
            ("string", ["a", ""]),
        ],
    )
    def test_every_type_comes_back(self, api: Api, name: str, values: list[Any]) -> None:
        for shaped in (values, [[[value]] for value in values], [[]]):
            body = {"signature_name": name, "instances": shaped}
            status, found = api.post("/v1/models/types:predict", body)
            assert status == 200, found
            assert found["predictions"] == shaped

    @pytest.mark.parametrize("name", ["float16", "bfloat16", "complex64", "complex128", "uint16", "qint8"])
    def test_types_without_json_are_unimplemented(self, api: Api, name: str) -> None:
        status, found = api.post("/v1/models/types:predict", {"signature_name": name, "inputs": [1]})
        assert status == 501
        assert found["error"].startswith("Conversion of JSON Value: 1 to type: ")

    def test_metadata_and_status(self, api: Api) -> None:
        status, content = api.ask("GET", f"{HALF}/metadata")
        found = json.loads(content)
        assert (status, found["model_spec"]["version"]) == (200, "7")
        signatures = found["metadata"]["signature_def"]["signature_def"]
        assert signatures["serving_default"]["inputs"]["x"]["tensor_shape"]["dim"][1]["size"] == "1"
        status, content = api.ask("GET", f"{HALF}/versions/7")
        assert json.loads(content)["model_version_status"][0]["state"] == "AVAILABLE"

    def test_errors_of_the_graph_are_told(self, api: Api) -> None:
        status, found = api.post("/v1/models/matrix:predict", {"instances": [{"b64": "aa"}]})
        assert (status, "element: 0" in found["error"]) == (400, True)

    def test_outputs_without_a_batch_have_no_rows(self, api: Api) -> None:
        body = {"signature_name": "incr_counter_by", "instances": [1.0]}
        status, found = api.post("/v1/models/counter:predict", body)
        assert status in (400, 500)
        body = {"signature_name": "incr_counter_by", "inputs": 2.0}
        assert api.post("/v1/models/counter:predict", body)[0] == 200
        status, found = api.post("/v1/models/counter:predict", {"signature_name": "get_counter", "inputs": {}})
        assert (status, found["error"]) == (400, "Failed to get input map for signature: get_counter")


def test_a_slow_model_is_given_up_and_its_connection_stays(models: ModuleType, tmp_path: Path) -> None:
    models.slow(tmp_path / "slow/1", seconds=30)
    config = ModelConfig("slow", str(tmp_path / "slow"), (1,))
    flags = ("--rest_api_timeout_in_ms=500",)
    with ServerProcess((config,), command=COMMAND, flags=flags, is_rest_enabled=True) as process:
        api = Api(process.rest_port)
        for _ in range(2):
            status, found = api.post("/v1/models/slow:predict", {"instances": [1.0]})
            assert (status, bool(found["error"])) == (504, True)
        api.close()


class TestHostile:
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
            (b'{"instances": ' + b"[" * 3_000_000, 400),
            (b'{"ignored": ' + b"[" * 500_000 + b"]" * 500_000 + b', "instances": [1]}', 200),
            (b'{"instances": [1], "instances": ["a"]}', 200),
            (b'{"instances": [1e400]}', 400),
            (b'{"instances": [' + b"9" * 100_000 + b"]}", 400),
            (b'{"instances": ["\\ud800"]}', 400),
            (b'{"instances": [1], "\xff\xfe": 1}', 200),
            (b'{"signature_name": "\xff", "instances": [1]}', 400),
            (b'{"instances": [1]}' + b"\x00" * MEGABYTE, 200),
            (b" " * MEGABYTE, 400),
            (b"\x00", 400),
        ],
    )
    def test_bodies(self, api: Api, body: bytes, status: int) -> None:
        assert api.ask("POST", f"{HALF}:predict", body)[0] == status

    @pytest.mark.parametrize("method", ["classify", "regress"])
    def test_examples_that_are_none(self, api: Api, method: str) -> None:
        for body in (b'{"examples": [' + b"[" * 100_000, b'{"examples": [{"\xff": 1}]}', b'{"examples": [{"x": {}}]}'):
            assert api.ask("POST", f"{HALF}:{method}", body)[0] == 400

    def test_a_gzip_bomb_takes_no_memory(self, api: Api, process: ServerProcess) -> None:
        before = peak_bytes(process)
        bomb = gzip.compress(b"0" * 1000 * MEGABYTE, compresslevel=1)
        status, found = api.post(f"{HALF}:predict", bomb, Content_Encoding="gzip")
        assert status == 400
        assert "longer than 104857600 bytes" in found["error"]
        assert peak_bytes(process) - before < 60 * MEGABYTE

    def test_json_of_200_megabytes_is_answered_in_bounded_memory_which_is_given_back(
        self, api: Api, process: ServerProcess
    ) -> None:
        row = b"[" + b"0.125000," * 9999 + b"0.125]"
        count = 200 * MEGABYTE // len(row)
        body = b'{"instances": [' + b",".join([row] * count) + b"]}"
        status, found = api.post("/v1/models/wide:predict", body)
        assert (status, found["predictions"]) == (200, [{"total": 1250.0, "width": 10000}] * count)
        assert peak_bytes(process) < 2500 * MEGABYTE
        assert resident_bytes(process) < 1000 * MEGABYTE

    @pytest.mark.parametrize("piece", [b"1,", b"[],", b"{},"])
    def test_json_that_would_take_gigabytes_is_refused(self, api: Api, process: ServerProcess, piece: bytes) -> None:
        body = b'{"instances": [' + piece * (200 * MEGABYTE // len(piece)) + b"1]}"
        status, found = api.post(f"{HALF}:predict", body)
        assert status == 429
        assert "bytes in memory" in found["error"]


def peak_bytes(process: ServerProcess) -> int:
    return _status_bytes(process, "VmHWM")


def resident_bytes(process: ServerProcess) -> int:
    return _status_bytes(process, "VmRSS")


def _status_bytes(process: ServerProcess, name: str) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
