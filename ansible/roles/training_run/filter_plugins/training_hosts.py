"""What the hosts of one training must have alike, in which order they are its workers, and which files they need."""

from __future__ import annotations

from collections import Counter
from statistics import median


def training_host_failures(results):
    """Return what the checks of one host found, a check that did not run included; skipped ones were not needed."""
    failures = []
    for result in results:
        said = str(result.get("module_stderr") or result.get("msg") or "no answer").strip()
        if result.get("unreachable"):
            # The later checks could only say the same again.
            return [*failures, f"it cannot be reached: {said}"]
        if "failures" in result:
            failures += result["failures"]
        elif not result.get("skipped"):
            failures.append(f"the check did not run: {said}")
    return failures


def training_host_differences(checked, max_clock_skew_seconds):
    """Return for each host what it has otherwise than most of the others.

    `checked` has for each host what training_host_preflight returned, with `gpus` beside it where they were counted.
    """
    failures = {host: [] for host in checked}
    answers = {host: answer for host, answer in checked.items() if "alike" in answer}
    values = {host: _alike(answer) for host, answer in answers.items()}
    for name in sorted({name for found in values.values() for name in found}):
        usual = Counter(found.get(name, "missing") for found in values.values()).most_common(1)[0][0]
        others = [host for host, found in values.items() if found.get(name, "missing") == usual]
        for host, found in values.items():
            if found.get(name, "missing") != usual:
                failures[host].append(
                    f"{name} is {found.get(name, 'missing')} here and {usual} on {', '.join(others)}; make them equal"
                )
    skews = {host: answer["clock_skew_seconds"] for host, answer in answers.items()}
    middle = median(skews.values()) if skews else 0
    for host, skew in skews.items():
        if abs(skew - middle) > max_clock_skew_seconds:
            failures[host].append(
                f"the clock is {skew - middle:+.0f} s off the other hosts'; start time synchronisation"
            )
    return failures


def training_host_order(checked, spread):
    """Return the hosts that train, the chief first: the host that has the most of the run, else the first."""
    standings = {host: answer.get("standing", 0) for host, answer in checked.items()}
    chief = max(standings, key=lambda host: standings[host])
    if spread != "hosts":
        return [chief]
    return [chief, *[host for host in standings if host != chief]]


def training_data_files(manifest):
    """Return the files that a training reads of a dataset, the manifest last; nothing else of the folder leaves it."""
    beside = [{"path": manifest[name]["path"]} for name in ("blocks", "examples") if name in manifest]
    shards = [{"path": shard["path"], "size_bytes": shard["size_bytes"]} for shard in manifest["shards"]]
    return [*shards, *beside, {"path": "data_manifest.json"}]


def _alike(answer):
    gpus = {"number of GPUs": str(answer["gpus"])} if "gpus" in answer else {}
    return {name: value[:12] if name == "data" else value for name, value in answer["alike"].items()} | gpus


class FilterModule:
    """Ansible's way to name filters."""

    def filters(self):
        """Return the filters by name."""
        return {
            "training_host_failures": training_host_failures,
            "training_host_differences": training_host_differences,
            "training_host_order": training_host_order,
            "training_data_files": training_data_files,
        }
