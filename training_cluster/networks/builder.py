"""A network of the user's own, named "package.module:function" in the configuration.

Its place in the flow: networks.network calls it where the architecture has no name of ours. The code
must be importable wherever the run trains: inside the repository that is copied to the hosts, or
installed there, or in a folder of PYTHONPATH.

The function's signature is `function(pixels, *, class_count, table) -> logits`:

    pixels: a Keras tensor, float32 [n, height, width, channels], from -1 to 1.
    class_count: the number of labels.
    table: the `ModelTable` of the configuration.
    logits: a Keras tensor [n, class_count], without softmax.

Layers called `dense`, `dropout` and `logits` are what `frozen_epochs` goes on training. Serving
executes only the operations listed in exports/graph_operations.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from artifact_sync.errors import SettingsError


def own_builder(name: str) -> Callable[..., Any]:
    """Return the function that "package.module:function" names.

    Raises:
        SettingsError: there is no such module or function, or importing it failed.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    # The module is not ours and may fail in any way.
    except Exception as error:
        raise SettingsError(
            f"Training refused: model.architecture {name!r}: module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {error}). Its code has to be on every host that trains: in the repository, "
            "installed there, or in a folder that PYTHONPATH names."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SettingsError(
            f"Training refused: model.architecture {name!r}: module {module_name} has no function {function_name!r}."
        )
    found: Callable[..., Any] = function
    return found
