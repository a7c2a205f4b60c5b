"""SavedModels through TensorFlow's C library: every type, many threads, damage, and memory given back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.embedded_server.session import Session, load_session, start_threads
from serving.embedded_server.status import Code, StatusError

TYPES = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TYPES += ["bool", "complex64", "complex128", "string"]
CYCLES = 24


@pytest.fixture(scope="module")
def echo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers what it was sent, with one signature for each type."""
    import tensorflow as tf

    module = tf.Module()
    module.ballast = tf.Variable(tf.ones([2_000_000]))  # 8 MB, so that a leak shows
    for name in TYPES:
        specification = tf.TensorSpec(None, tf.as_dtype(name), name="x")
        echo = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[specification])
        setattr(module, name, echo)
    specification = tf.TensorSpec([None], tf.int32, name="x")
    module.total = tf.function(
        lambda x: {"y": tf.reduce_sum(tf.gather(module.ballast, x))}, input_signature=[specification]
    )
    path = tmp_path_factory.mktemp("echo") / "1"
    signatures = {name: getattr(module, name) for name in [*TYPES, "total"]}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def load(path: Path, **change: Any) -> Session:
    return load_session(path, **{"tags": ("serve",), "intra_op_threads": 1, "inter_op_threads": 2, **change})


@pytest.fixture(scope="module")
def session(echo_path: Path) -> Session:
    start_threads(intra_op_threads=1, inter_op_threads=2)
    return load(echo_path)


def run(session: Session, signature: str, array: np.ndarray, **timeout: Any) -> np.ndarray:
    definition = session.signature_defs[signature]
    (answer,) = session.run(
        {definition.inputs["x"].name: array},
        [definition.outputs["y"].name],
        timeout_seconds=timeout.get("timeout_seconds"),
    )
    return answer


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("name", TYPES)
def test_a_tensor_comes_back_as_it_went(session: Session, name: str, shape: tuple[int, ...]) -> None:
    if name == "string":
        texts = [b"", b"short", b"\x00\xff", b"long " * 100]
        array = np.resize(np.array(texts, dtype=object), shape)
    else:
        array = np.resize(np.arange(7), shape).astype(name)
    back = run(session, name, array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


def test_arrays_that_are_not_contiguous_are_read_in_their_order(session: Session) -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::-1].T
    assert np.array_equal(run(session, "int32", array), array)


def test_many_threads_get_their_own_answers(session: Session) -> None:
    wrong: list[int] = []

    def ask(number: int) -> None:
        array = np.full(100, number, np.int64)
        for _ in range(200):
            if not np.array_equal(run(session, "int64", array), array):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_first_runs_that_come_at_once_are_all_answered(echo_path: Path) -> None:
    program = (
        "import numpy, pathlib, sys, threading\n"
        "from serving.embedded_server.session import load_session\n"
        "session = load_session(pathlib.Path(sys.argv[1]), tags=('serve',), intra_op_threads=1, inter_op_threads=1)\n"
        "definition = session.signature_defs['total']\n"
        "together = threading.Barrier(8)\n"
        "def ask():\n"
        "    for size in (1, 100, 10_000, 1_000_000):\n"
        "        together.wait()\n"
        "        feeds = {definition.inputs['x'].name: numpy.zeros(size, numpy.int32)}\n"
        "        session.run(feeds, [definition.outputs['y'].name], timeout_seconds=None)\n"
        "        sys.stdout.write('answered\\n')\n"
        "threads = [threading.Thread(target=ask) for _ in range(8)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(echo_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["answered"] * 32, done.stderr


def test_a_library_of_python_that_is_loaded_later_finds_its_own_functions(echo_path: Path) -> None:
    # TensorFlow's libraries hold functions of the names of OpenSSL's; Python's hashlib once found those.
    program = (
        "import pathlib, sys\n"
        "from serving.embedded_server.session import load_session\n"
        "load_session(pathlib.Path(sys.argv[1]), tags=('serve',), intra_op_threads=1, inter_op_threads=1)\n"
        "import hashlib, ssl\n"
        "ssl.create_default_context()\n"
        "print(hashlib.new('sha256', b'').hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(echo_path)], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("e3b0c442")


def test_a_run_that_memory_does_not_allow_is_refused_and_the_next_one_is_answered(echo_path: Path) -> None:
    program = (
        "import numpy, pathlib, resource, sys\n"
        "from serving.embedded_server.session import load_session\n"
        "from serving.embedded_server.status import StatusError\n"
        "session = load_session(pathlib.Path(sys.argv[1]), tags=('serve',), intra_op_threads=1, inter_op_threads=1)\n"
        "definition = session.signature_defs['uint8']\n"
        "def run(size):\n"
        "    feeds = {definition.inputs['x'].name: numpy.zeros(size, numpy.uint8)}\n"
        "    return session.run(feeds, [definition.outputs['y'].name], timeout_seconds=None)[0].size\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (500 << 20),) * 2)\n"
        "try:\n"
        "    run(100 << 20)\n"
        "except StatusError as error:\n"
        "    print(error.code.name, 'send fewer rows' in error.message, run(7))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(echo_path)], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "RESOURCE_EXHAUSTED True 7\n"


def test_variables_are_restored(session: Session) -> None:
    assert run(session, "total", np.arange(5, dtype=np.int32)) == 5.0


def test_errors_have_tensorflows_code_and_words(session: Session) -> None:
    with pytest.raises(StatusError, match=r"indices\[0\] = 2000000 is not in \[0, 2000000\)") as caught:
        run(session, "total", np.array([2_000_000], np.int32))
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(StatusError, match="Tensor nobody:0 is not in the graph"):
        session.run({}, ["nobody:0"], timeout_seconds=None)


def damage(path: Path, how: str) -> None:
    data = next((path / "variables").glob("variables.data*"))
    match how:
        case "no graph":
            (path / "saved_model.pb").unlink()
        case "cut graph":
            (path / "saved_model.pb").write_bytes((path / "saved_model.pb").read_bytes()[:-100])
        case "no data":
            data.unlink()
        case "cut data":
            data.write_bytes(data.read_bytes()[:-100])
        case "flipped bit":
            content = bytearray(data.read_bytes())
            content[len(content) // 2] ^= 1
            data.write_bytes(bytes(content))
        case "no index":
            (path / "variables/variables.index").unlink()
        case "no variables":
            shutil.rmtree(path / "variables")


@pytest.mark.parametrize(
    "how", ["no graph", "cut graph", "no data", "cut data", "flipped bit", "no index", "no variables"]
)
def test_a_version_that_is_not_whole_does_not_load(echo_path: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(echo_path, tmp_path / "1")
    damage(tmp_path / "1", how)
    with pytest.raises(StatusError) as caught:
        load(tmp_path / "1")
    assert caught.value.message
    load(echo_path).close()


def test_a_graph_without_the_tags_asked_for_does_not_load(echo_path: Path) -> None:
    with pytest.raises(StatusError, match="tags"):
        load(echo_path, tags=("serve", "gpu"))


def test_memory_and_files_are_given_back(echo_path: Path) -> None:
    def figures() -> tuple[float, int]:
        fields = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()
        return int(fields[0]) / 1024, len(list(Path("/proc/self/fd").iterdir()))

    measured = []
    for _ in range(CYCLES):
        session = load(echo_path)
        run(session, "total", np.arange(5, dtype=np.int32))
        session.close()
        measured.append(figures())
    (first_megabytes, first_files), (last_megabytes, last_files) = measured[CYCLES // 3], measured[-1]
    print(f"\nafter {CYCLES} loads: {last_megabytes - first_megabytes:+.1f} MB, {last_files - first_files:+d} files")
    assert last_files <= first_files
    # One leak a load would be 8 MB each.
    assert last_megabytes - first_megabytes < 24
