"""Sets the demo up: a folder of its own, and a directory or a real S3 server as the bucket.

Its place in the flow: `liftgate demo` calls `run_demo`, which tells the story.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from artifact_sync.errors import SettingsError
from liftgate.demo.images import LabelledImages
from liftgate.demo.narration import Narrator
from liftgate.demo.sites import prepare_folder
from liftgate.demo.story import Story

_REPOSITORY = Path(__file__).parents[2]


def run_demo(
    *, folder: Path, images: LabelledImages, is_s3: bool, is_kept: bool, port: int, narrator: Narrator
) -> None:
    """Tell the story on a directory, or on a real S3 server that is started for it.

    Raises:
        SettingsError: this is not a source checkout, so there is no playbook.
        DemoError: a step did not do what the story says.
    """
    inventory = _REPOSITORY / "ansible" / "inventories" / "local"
    if not inventory.is_dir():
        raise SettingsError(f"The demo needs a source checkout: there is no {inventory}. Clone the repository.")
    prepare_folder(folder)
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="liftgate-")))
        store_url, endpoint_url, environment = f"dir:{folder / 'bucket'}", None, {}
        if is_s3:
            from liftgate.local_s3 import LocalS3

            server = stack.enter_context(LocalS3(folder / "s3-server"))
            store_url, endpoint_url = f"s3://{server.bucket}", server.endpoint_url
            environment = dict(server.environment)
            # The story itself looks into the bucket too, and S3 takes credentials from the environment.
            os.environ.update(environment)
            narrator.say(f"A real S3 server (SeaweedFS) runs at {endpoint_url}.")
        story = Story(folder, images, store_url, endpoint_url, environment, inventory, sockets, port, narrator)
        story.tell(is_kept=is_kept)
