"""The story, in order: train, judge, approve, promote, reload, classify, refuse, correct, roll back.

Its place in the flow: stage.py sets it up for `liftgate demo`. Every verb is the command that a person would type,
as a process of its own; the front end, the agent and the model server run as they do in production.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from artifact_sync.registry import Registry
from artifact_sync.settings import StoreSettings, open_store
from liftgate.demo.images import LabelledImages
from liftgate.demo.narration import Narrator
from liftgate.demo.photos import PhonePhoto, phone_photos, write_holdout_photos, write_training_photos
from liftgate.demo.services import Services, answers, start_model_server
from liftgate.demo.sites import DemoError, Site, make_sites
from liftgate.demo.traffic import Counts, Traffic, classify, post

_HERE = Path(__file__).parent
_PHONE_PHOTOS = 60
_ANSWERS_WANTED = 500


@dataclass(frozen=True)
class Story:
    """One telling.

    Attributes:
        folder: where both sites and the directory store lie; made anew.
        images: the labelled pictures.
        store_url: where the bucket is.
        endpoint_url: the S3 server, None for a directory.
        environment: credentials for it.
        inventory: the Ansible inventory of the training site.
        sockets: a folder with a short path for the model servers' sockets.
        port: where the front end listens, 0 for a free port.
        narrator: tells it.
    """

    folder: Path
    images: LabelledImages
    store_url: str
    endpoint_url: str | None
    environment: Mapping[str, str]
    inventory: Path
    sockets: Path
    port: int
    narrator: Narrator

    def tell(self, *, is_kept: bool) -> None:
        """Tell it from beginning to end; with `is_kept` the front end stays until Ctrl-C.

        Raises:
            DemoError: a step did not do what the story says.
        """
        store = {"url": self.store_url, **({"endpoint_url": self.endpoint_url} if self.endpoint_url else {})}
        training, serving = make_sites(
            self.folder,
            store=store,
            environment=self.environment,
            inventory=self.inventory,
            socket=self._socket("serving-host-1"),
            narrator=self.narrator,
        )
        self._prepare(training)
        self._first_release(training)
        with Services(serving) as services:
            address = self._serve(training, serving, services)
            self._classify(address)
            self._better_release(training, services, address)
            self._refusals(training, serving)
            self._correct(training, services, address)
            self._roll_back(training, services, address)
            self.narrator.summary()
            if is_kept:
                self._keep(address)

    def _prepare(self, site: Site) -> None:
        say = self.narrator.say
        self.narrator.step("People's labelled photos become a frozen holdout and training shards")
        say(f"{self.images.name}, real photos with labels that people gave; this copy is from {self.images.origin}.")
        judged = write_holdout_photos(self.images, site.folder / "holdout-photos")
        trained = write_training_photos(self.images, site.folder / "photos")
        site.run("dataset", "freeze-holdout", "--photos", "holdout-photos")
        built = site.run(*self._build, "--json").document
        self.narrator.figure("photos frozen to judge by, and in shards to train on", f"{judged:,} and {trained:,}")
        if built["examples"] + built["duplicates"] + built["excluded"] != trained:
            raise DemoError(f"{trained} photos were handed in, {built} came out.")

    def _first_release(self, site: Site) -> None:
        self.narrator.step("A first model: trained through the Ansible playbook, judged, approved, promoted")
        self.narrator.say("Keys first. In production each person makes an own one, with a passphrase.")
        for name in ("root", "approver", "releaser"):
            site.run("keys", "new", name, "--directory", "keys", "--no-passphrase", is_quiet=True)
        site.run(
            "keys", "init", "--root", "keys/root", "--approver", "keys/approver", "--releaser", "keys/releaser"
        )  # fmt: skip
        shutil.copyfile(_HERE / "policy.toml", site.folder / "policy.toml")
        self._train(site, "first")
        site.run("validate", "first", "--first")
        site.run("approve", "first", "--because", "Nothing is served yet, and it clears the floors")
        site.run("promote", "first", "--by", "operator")

    def _serve(self, training: Site, serving: Site, services: Services) -> str:
        self.narrator.step("The serving site pulls release 1, verifies it and serves it")
        self.narrator.say("It is given the trusted root once, and opens no connection to the training site.")
        shutil.copyfile(training.folder / "root.json", serving.folder / "root.json")
        start_model_server(services, self._socket("serving-host-1"), models_dir=serving.folder / "models")
        services.start("agent")
        seconds = services.wait_for("the acknowledgement of release 1", lambda: self._is_served(1, version=1))
        self.narrator.figure("release 1 pulled, verified, golden examples replayed, label moved", f"{seconds:.1f} s")
        services.start("web", "--port", str(self.port))
        log = serving.folder / "web.log"
        services.wait_for("the front end", lambda: "READY " in log.read_text())
        address = log.read_text().partition("READY ")[2].split()[0]
        services.wait_for("a ready front end", lambda: answers(f"{address}/readyz"))
        training.run("status")
        return address

    def _classify(self, address: str) -> None:
        self.narrator.step("Somebody uploads a photo from a phone")
        photo = self._photos[0]
        answer = classify(address, photo.jpeg)
        top = ", ".join(f"{entry['label']} {entry['score']:.0%}" for entry in answer["top"][:3])
        self.narrator.say(f"POST {address}/api/v1/classify with a JPEG of {len(photo.jpeg):,} bytes: {photo.label}")
        self.narrator.figure(f"answer of version {answer['version']}", top)

    def _better_release(self, site: Site, services: Services, address: str) -> None:
        self.narrator.step("A better model is trained, shown to be better, and reloaded while photos keep coming")
        self._train(site, "better")
        verdict = site.run("validate", "better", "--json").document
        for reason in verdict["reasons"]:
            self.narrator.output(f"{reason['outcome']:<11} {reason['check']}: {reason['statement']}")
        self.narrator.figure("verdict on the second model", verdict["outcome"])
        self.narrator.say("An operator in a hurry promotes before anybody has approved:")
        site.refused("an unapproved model, by promote", "promote", "better", "--by", "operator")
        site.run("approve", "better", "--because", "Better than version 1 on the holdout; the report looks sound")
        with self._traffic(services, address, version=1) as traffic:
            site.run("promote", "better", "--by", "operator")
            started = time.monotonic()
            services.wait_for("version 2 in the answers", lambda: traffic.answered_by(2) > 0)
            seconds = time.monotonic() - started
            services.wait_for("many answers of version 2", lambda: traffic.answered_by(2) >= _ANSWERS_WANTED)
            services.wait_for("the acknowledgement of release 2", lambda: self._is_served(2, version=2))
        self.narrator.figure("release 2 in people's answers after", f"{seconds:.1f} s")
        self._tell_counts("requests during the reload", traffic.counts)

    def _refusals(self, training: Site, serving: Site) -> None:
        self.narrator.step("What must not pass does not pass")
        self.narrator.say("A worse model meets the gate:")
        self._train(training, "worse", is_quiet=True)
        training.refused("a worse model, by the gate", "validate", "worse")
        training.refused("a worse model, by approve", "approve", "worse", "--because", "It is new")
        self.narrator.say("Somebody who owns the bucket changes one byte of version 2; a new serving host starts:")
        with self._tampered_version(2):
            self._new_host(training, serving, "serving-host-2")
        self.narrator.say("The byte is put back. Hosts that served version 2 were never touched by it.")

    def _correct(self, site: Site, services: Services, address: str) -> None:
        self.narrator.step("A person corrects an answer, and the next dataset has it")
        photo, answer = self._wrong_answer(address)
        wrong = answer["top"][0]["label"]
        correction = {"request_id": answer["request_id"], "label": photo.label, "keep_photo": True}
        post(f"{address}/api/v1/feedback", json.dumps(correction).encode(), content_type="application/json")
        self.narrator.say(f"The answer was {wrong!r}; the person says {photo.label!r} and agrees to keep the photo.")
        services.wait_for("the correction in the bucket", lambda: any(True for _ in self._registry.feedback()))
        built = site.run(*self._build, "--out", "dataset-with-feedback", "--json").document
        self.narrator.figure("corrections in the next dataset", str(built["feedback"]))
        if built["feedback"] != 1:
            raise DemoError(f"One correction was made, the dataset has {built['feedback']}.")

    def _roll_back(self, site: Site, services: Services, address: str) -> None:
        self.narrator.step("Back to version 1: a release that names it, and only a label moves")
        with self._traffic(services, address, version=2) as traffic:
            before = traffic.answered_by(1)
            started = time.monotonic()
            site.run("rollback", "--because", "Practising the way back", "--by", "operator")
            services.wait_for("answers of version 1", lambda: traffic.answered_by(1) > before)
            seconds = time.monotonic() - started
            services.wait_for("the acknowledgement of release 3", lambda: self._is_served(3, version=1))
        self.narrator.figure("from typing rollback to version 1 in people's answers", f"{seconds:.1f} s")
        self._tell_counts("requests during the rollback", traffic.counts)
        site.run("history")

    def _keep(self, address: str) -> None:
        self.narrator.say(f"The front end stays at {address} until you press Ctrl-C.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            self.narrator.say("Ending.")

    def _train(self, site: Site, name: str, *, is_quiet: bool = False) -> None:
        shutil.copyfile(_HERE / f"{name}.toml", site.folder / f"{name}.toml")
        words = ("train", "--run-id", name, "--training-config", f"{name}.toml")
        metrics = site.run(*words, "--json", is_quiet=is_quiet).document["metrics"]
        if not is_quiet:
            self.narrator.output(
                f"{metrics['steps']:.0f} steps, validation accuracy {metrics['validation_accuracy']:.1%}, "
                f"{metrics['images_per_second']:,.0f} images/s"
            )

    def _wrong_answer(self, address: str) -> tuple[PhonePhoto, dict[str, Any]]:
        for photo in self._photos:
            answer = classify(address, photo.jpeg)
            if answer["top"][0]["label"] != photo.label:
                return photo, answer
        raise DemoError(f"Every one of {_PHONE_PHOTOS} photos was answered right; there is nothing to correct.")

    @contextmanager
    def _traffic(self, services: Services, address: str, *, version: int) -> Iterator[Traffic]:
        with Traffic(address, [photo.jpeg for photo in self._photos]) as traffic:
            services.wait_for("steady traffic", lambda: traffic.answered_by(version) >= _ANSWERS_WANTED)
            yield traffic

    def _tell_counts(self, what: str, counts: Counts) -> None:
        by = ", ".join(f"{count:,} by version {version}" for version, count in sorted(counts.versions.items()))
        self.narrator.figure(what, f"{counts.sent:,} sent, {counts.failed} failed ({by})")
        if counts.failed:
            raise DemoError(f"{counts.failed} requests failed; the first one: {counts.first_failure}")

    @contextmanager
    def _tampered_version(self, version: int) -> Iterator[None]:
        """Change one byte of the version's graph in the bucket, and put it back."""
        record = json.loads((self._record_bytes(self._registry.version_key(version))).decode())
        graph = next(entry for entry in record["manifest"]["files"] if entry["path"] == "saved_model.pb")
        key = self._registry.blob_key(graph["sha256"])
        good = self._record_bytes(key)
        self._registry.store.replace(key, good[:-1] + bytes([good[-1] ^ 1]))
        try:
            yield
        finally:
            self._registry.store.replace(key, good)

    def _new_host(self, training: Site, serving: Site, name: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        settings = (serving.folder / "liftgate.toml").read_text()
        # Its name, and with it its socket.
        (folder / "liftgate.toml").write_text(settings.replace("serving-host-1", name))
        shutil.copyfile(training.folder / "root.json", folder / "root.json")
        host = Site(folder, serving.environment, self.narrator)
        with Services(host) as services:
            start_model_server(services, self._socket(name), models_dir=folder / "models")
            host.refused("a tampered model, by the agent", "agent", "--once")

    def _socket(self, host: str) -> Path:
        return self.sockets / f"{host}.sock"

    def _record_bytes(self, key: str) -> bytes:
        with self._registry.store.open(key) as stream:
            return stream.read()

    def _is_served(self, release: int, *, version: int) -> bool:
        records = self._registry.acknowledgements(release)
        return any(record.outcome == "serving" and record.serving_version == version for record in records)

    @property
    def _build(self) -> tuple[str, ...]:
        # Pictures this small look alike sooner than photos do; the demo's policy says the same.
        return ("dataset", "build", "--photos", "photos", "--size", self._size, "--near-distance", "2")

    @property
    def _size(self) -> str:
        return "x".join(str(side) for side in self.images.train_pixels.shape[1:])

    @cached_property
    def _photos(self) -> list[PhonePhoto]:
        return list(phone_photos(self.images, count=_PHONE_PHOTOS))

    @cached_property
    def _registry(self) -> Registry:
        settings = StoreSettings(url=self.store_url, endpoint_url=self.endpoint_url)
        return Registry(open_store(settings), model="photos")
