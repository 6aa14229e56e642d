"""The doctor names what is wrong, with what was expected and what mends it, and never fails itself."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from lnln import doctor
from lnln.config import load_config
from lnln.doctor import child, machine
from lnln.doctor.finding import Finding, without_password
from tests.command import LNLN, lnln
from tests.dask_processes import dask_processes
from tests.faulty_proxy import FaultyProxy
from tests.guarded_s3 import guarded_s3
from tests.ray_nodes import ray_cluster


def findings(store: str) -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in doctor.examine(store)}


@pytest.fixture(autouse=True)
def _no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LNLN_DASK", "DASK_SCHEDULER_ADDRESS", "RAY_ADDRESS", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


def expect(found: Finding, *words: str) -> None:
    """It is wrong, says so with `words`, and says what was expected and what mends it, in one line."""
    assert found.level == "wrong" and found.expected and found.mend, found
    assert "\n" not in found.line
    for word in words:
        assert word in found.line, found.line


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_plain_machine_with_a_folder_is_fine(tmp_path: Path) -> None:
    found = findings(str(tmp_path / "store"))
    assert found["store"].level == "fine"
    assert found["Dask"].level == found["Ray"].level == found["Prefect"].level == "fine"
    assert found["text encoder"].level == "fine"


def test_a_store_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = findings(str(tmp_path / "file" / "store"))
    assert found["store"].level == "wrong" and str(tmp_path / "file") in found["store"].text


def test_a_store_that_did_not_exist_does_not_exist_afterwards(tmp_path: Path) -> None:
    assert findings(str(tmp_path / "a" / "b" / "store"))["store"].level == "fine"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert findings(str(tmp_path / "store"))["store"].level == "fine"
    assert [path.name for path in tmp_path.rglob("*")] == ["store"]


@pytest.mark.parametrize("chosen", ["none", "local"])
def test_a_dask_without_address_is_fine(chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", chosen)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{closed_port()}")  # LNLN_DASK goes first
    assert findings(str(tmp_path))["Dask"].level == "fine"


def test_an_empty_variable_is_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("LNLN_DASK", "")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    assert str(port) in findings(str(tmp_path))["Dask"].text


def test_an_address_in_lnln_dask_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"tcp://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("LNLN_DASK", address)
    expect(findings(str(tmp_path))["Dask"], address, "LNLN_DASK")


@pytest.mark.slow
def test_who_listens_and_speaks_another_language_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and never answers: every check ends, and in its own time."""
    monkeypatch.setattr(child, "ANSWER_SECONDS", 8.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thing")
        begun = time.monotonic()
        found = findings("s3://bucket/lnln")
        assert time.monotonic() - begun < 40
    for topic in ("Dask", "Ray", "Prefect", "store"):
        expect(found[topic])


def test_services_that_do_not_answer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    found = findings(str(tmp_path))
    for topic in ("Dask", "Ray", "Prefect"):
        expect(found[topic], str(port))


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "127.0.0.1:notaport", "host:99999999"])
def test_an_address_that_is_none_is_wrong(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    expect(findings(str(tmp_path))["Dask"])


def test_a_version_that_breaks_prefect_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.151.0" if name == "fastapi" else real(name))
    wrong = [finding for finding in doctor.examine(str(tmp_path)) if finding.level == "wrong"]
    assert ["fastapi 0.151.0" in finding.text for finding in wrong] == [True]


def test_raw_clips_can_be_read_where_the_extra_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda module: object())
    found = findings(str(tmp_path))
    assert found["clips"].level == "fine" and "can be read" in found["clips"].text
    assert "research only" in found["more extractors"].text


@pytest.mark.parametrize("missing", sorted(machine.MEDIA_PACKAGES))
def test_what_raw_clips_lack_is_a_note_with_the_command(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = machine.MEDIA_PACKAGES[missing]
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name in (module, "opensmile") else object())
    found = findings(str(tmp_path))
    assert found["clips"].level == "note"
    assert f"without {missing}: pip install 'lnln[media]'" in found["clips"].text
    assert "no openSMILE" in found["more extractors"].text and found["more extractors"].level == "fine"


def test_openface_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / machine.OPENFACE_PROGRAMS[0]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no OpenFace" in findings(str(tmp_path))["more extractors"].text
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert f"OpenFace at {program}" in findings(str(tmp_path))["more extractors"].text


def test_a_password_in_an_address_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_password("http://me:hush@host:1/api") == "http://***@host:1/api"
    assert without_password("tcp://host:1") == "tcp://host:1" and without_password("host:6379") == "host:6379"
    for scheme, name in (("http", "PREFECT_API_URL"), ("tcp", "DASK_SCHEDULER_ADDRESS")):
        monkeypatch.setenv(name, f"{scheme}://me:hush@127.0.0.1:{closed_port()}/api")
    found = doctor.examine(str(tmp_path))
    assert "hush" not in repr(found) and sum(finding.level == "wrong" for finding in found) == 2


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> list[Finding]:
        raise RuntimeError("a package\nis half installed")

    monkeypatch.setattr(machine, "text_encoder", breaks)
    found = findings(str(tmp_path))
    expect(found["text encoder"], "half installed")
    assert found["store"].level == "fine"


def test_a_child_that_says_nothing_or_nonsense_is_an_answer_that_did_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(child.NoAnswerError, match="No module named"):
        child.ask("lnln.doctor.nothing")
    with pytest.raises(child.NoAnswerError, match="TypeError"):
        child.ask("lnln.doctor.ask_dask")  # without its argument
    with pytest.raises(child.NoAnswerError):
        child.ask("this")  # prints a poem
    monkeypatch.setattr(child, "ANSWER_SECONDS", 0.01)
    with pytest.raises(child.NoAnswerError, match=r"nothing within 0\.01 s"):
        child.ask("lnln.doctor.ask_dask", "tcp://127.0.0.1:9")


# What a training wants.


def test_a_gpu_that_the_config_asks_for_and_is_not_there_is_wrong(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = load_config(None, ["train.compile=reduce-overhead"])
    of_config = {finding.topic: finding for finding in doctor.examine(str(tmp_path), config)}
    expect(of_config["GPU"], "expected 1 for train.compile=reduce-overhead", "found 0")
    of_option = {finding.topic: finding for finding in doctor.examine(str(tmp_path), num_gpus=4)}
    expect(of_option["GPU"], "expected 4", "found 0")
    assert findings(str(tmp_path))["GPU"].level == "note"


def test_a_config_that_asks_for_none_wants_none(tmp_path: Path) -> None:
    found = doctor.examine(str(tmp_path), load_config("mosi", []))
    assert not [finding for finding in found if finding.topic == "GPU" and finding.level == "wrong"]


# Disks: a file system of 8 MB that only the command sees.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "named"),
    [("LNLN_STORE", "store"), ("TMPDIR", "temporary files"), ("LNLN_CACHE", "cache")],
)
def test_a_disk_that_is_nearly_full_is_named(variable: str, named: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    environment = {**os.environ, "LNLN_STORE": str(tmp_path / "store"), variable: str(small)}
    script = f"mount -t tmpfs -o size=8m none {small} && exec {LNLN} --json doctor"
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run([*alone, "sh", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    full = [finding for finding in json.loads(done.stdout)["findings"] if finding["level"] == "wrong"]
    assert [finding["topic"] for finding in full] == ["disk"]
    assert named in full[0]["text"] and "0.01 of 0.01 GiB free" in full[0]["text"] and full[0]["mend"]


# Stores.


@pytest.mark.slow
def test_a_store_in_a_bucket_is_fine_and_keeps_nothing(s3_store_url: str, s3_endpoint: str) -> None:
    assert findings(s3_store_url)["store"].level == "fine"
    bucket = s3_store_url.split("/")[2]
    with urllib.request.urlopen(f"{s3_endpoint}/{bucket}?list-type=2", timeout=10) as answer:
        assert b"<Key>" not in answer.read()


@pytest.mark.slow
def test_a_bucket_that_is_none_is_wrong(s3_store_url: str) -> None:
    expect(findings("s3://no-such-bucket-here/lnln")["store"], "create-bucket --bucket no-such-bucket-here")


@pytest.mark.slow
@pytest.mark.parametrize("deaf_to", [{"if-none-match"}, {"if-match"}, {"if-none-match", "if-match"}])
def test_a_store_without_conditional_writes_is_wrong(
    deaf_to: set[str], s3_store_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(s3_endpoint, seed=1) as proxy:
        proxy.deaf_to = deaf_to
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        found = findings(s3_store_url)["store"]
    expect(found, "If-None-Match")
    assert ("conditional create" in found.text) == ("if-none-match" in deaf_to)
    assert ("conditional update" in found.text) == ("if-match" in deaf_to)


@pytest.mark.slow
def test_a_server_that_keeps_failing_is_named_with_its_answer(
    s3_store_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(s3_endpoint, seed=1) as proxy:
        proxy.rate, proxy.kinds = 1.0, ("503",)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        expect(findings(s3_store_url)["store"], "SlowDown")


@pytest.mark.slow
def test_a_store_that_nobody_listens_at_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "some"), ("SECRET_ACCESS_KEY", "hush-hush")):
        monkeypatch.setenv(f"AWS_{name}", value)
    found = findings("s3://bucket/lnln")["store"]
    expect(found, "unreachable", endpoint)
    assert "hush-hush" not in repr(found)


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, dict[str, str]]]:
    """Environments of somebody with every right on a bucket, of one who may only read, and of three wrong keys."""
    everything, reading = [{"Action": action, "Resource": "*", "Effect": "Allow"} for action in ("s3:*", "s3:Get*")]
    with guarded_s3() as server:
        server.client("s3").create_bucket(Bucket="guarded")
        good = server.user("writer", {"Version": "2012-10-17", "Statement": [everything]})
        reader = server.user("reader", {"Version": "2012-10-17", "Statement": [reading]})
        server.lock()
        yield {
            "good": good,
            "reader": reader,
            "unknown key": {**good, "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"},
            "wrong secret": {**good, "AWS_SECRET_ACCESS_KEY": "wrong"},
            "none": {**good, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
        }


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["unknown key", "wrong secret", "none"])
def test_wrong_credentials_are_named(
    whose: str, keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys[whose].items():
        monkeypatch.setenv(name, value)
    found = findings("s3://guarded/lnln")["store"]
    expect(found, "wrong credentials", "AWS_ACCESS_KEY_ID")
    assert keys["good"]["AWS_SECRET_ACCESS_KEY"] not in repr(found)


@pytest.mark.slow
def test_good_credentials_are_fine_and_too_few_rights_are_named(
    keys: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys["good"].items():
        monkeypatch.setenv(name, value)
    assert findings("s3://guarded/lnln")["store"].level == "fine"
    for name, value in keys["reader"].items():
        monkeypatch.setenv(name, value)
    expect(findings("s3://guarded/lnln")["store"], "may not do this", "policy.json")


# Services.


@pytest.mark.slow
def test_a_dask_cluster_is_fine_or_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dask_processes(tmp_path, num_workers=1) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
        wait_for(lambda: "1 workers, 1 threads" in findings(str(tmp_path))["Dask"].text)
        # An environment that is mixed: this worker's says that it has another version of what sends its jobs.
        older = an_older_version("distributed", "2024.5.1", tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(older))
        cluster.add_worker()
        monkeypatch.delenv("PYTHONPATH")
        wait_for(lambda: findings(str(tmp_path))["Dask"].level == "wrong")
        found = findings(str(tmp_path))["Dask"]
    here = metadata.version("distributed")
    expect(found, f"expected distributed {here} as here", "found distributed 2024.5.1 on worker tcp://", "constraints")


@pytest.mark.slow
def test_a_dask_scheduler_without_workers_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dask_processes(tmp_path, num_workers=0) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
        found = [finding for finding in doctor.examine(str(tmp_path)) if finding.topic == "Dask"]
    assert [finding.level for finding in found] == ["fine", "note"] and "dask worker" in found[1].text


@pytest.mark.slow
def test_a_ray_cluster_is_fine_or_wants_a_token_or_is_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_cluster() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
        expect(findings(str(tmp_path))["Ray"], cluster.address, "RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.environment["RAY_AUTH_TOKEN"])
        found = findings(str(tmp_path))["Ray"]
        assert found.level == "fine" and "1 nodes, 1 CPUs, 0 GPUs" in found.text
        wanted = [finding for finding in doctor.examine(str(tmp_path), num_gpus=2) if finding.level == "wrong"]
        assert [finding.topic for finding in wanted] == ["GPU"]
        expect(wanted[0], "expected 2", "0 in the Ray cluster")
        # What the head writes down of itself at its start, as an older one would.
        subprocess.run([sys.executable, "-c", CLAIM_AN_OLDER_RAY, cluster.address], check=True, timeout=60)
        expect(findings(str(tmp_path))["Ray"], "Ray 2.9.0", f"expected Ray {metadata.version('ray')}", "constraints")


CLAIM_AN_OLDER_RAY = """
import json, sys
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY as key
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
found = {**json.loads(client.internal_kv_get(key, namespace=b"cluster")), "ray_version": "2.9.0"}
client.internal_kv_put(key, json.dumps(found).encode(), True, namespace=b"cluster")
"""


@pytest.mark.slow
def test_a_prefect_server_is_fine_and_its_work_pool_without_worker_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:hush")
    port = closed_port()
    prefect = str(Path(sys.executable).with_name("prefect"))
    with (tmp_path / "log").open("wb") as log:
        command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/api"
        wait_for(lambda: answers(f"{url}/health"))
        monkeypatch.setenv("PREFECT_API_URL", url)
        expect(findings(str(tmp_path / "store"))["Prefect"], "401", "PREFECT_API_AUTH_STRING")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:hush")
        assert f"Prefect {metadata.version('prefect')}, 0 work pools" in findings(str(tmp_path))["Prefect"].text
        subprocess.run([prefect, "work-pool", "create", "default", "--type", "process"], check=True, timeout=120)
        found = [finding for finding in doctor.examine(str(tmp_path / "store")) if finding.topic == "Prefect"]
        assert [finding.level for finding in found] == ["fine", "note"]
        assert "prefect worker start --pool default" in found[1].text and "hush" not in repr(found)
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}")  # without /api
        expect(findings(str(tmp_path / "store"))["Prefect"], "/api")
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.parametrize("version", ["3.4.25", "2.20.3", "4.0.0"])
def test_a_prefect_server_of_another_version_is_wrong(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server({"/api/admin/version": json.dumps(version), "/api/work_pools/filter": "[]"}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        expect(findings(str(tmp_path))["Prefect"], f"Prefect {version}", metadata.version("prefect"), "pip install")


@pytest.mark.parametrize("page", ["<html>hello</html>", "{}", "", "[" * 100_000, "\x00\xff"])
def test_a_web_server_that_is_no_prefect_is_wrong(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server({"/api/admin/version": page, "/api/work_pools/filter": page}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        expect(findings(str(tmp_path))["Prefect"], url)


@pytest.mark.slow
def test_the_command_says_a_line_for_each_fault_and_exits_with_1(tmp_path: Path) -> None:
    port = str(closed_port())
    services: dict[str, Any] = {"DASK_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{port}", "RAY_ADDRESS": f"127.0.0.1:{port}"}
    outcome = lnln("doctor", "--gpus", "1", store=tmp_path, as_json=False, **services)
    assert outcome.code == 1
    lines = [line for line in outcome.out.splitlines() if line.startswith("wrong: ")]
    assert [line.split()[1] for line in lines] == ["Dask:", "Ray:"] and all("; " in line for line in lines)
    outcome = lnln("doctor", store=tmp_path, **services)
    faults = [found for found in json.loads(outcome.out)["findings"] if found["level"] == "wrong"]
    assert outcome.code == 1 and all(found["expected"] and found["mend"] for found in faults) and len(faults) == 2
    assert lnln("doctor", store=tmp_path).code == 0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_for(condition: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def an_older_version(package: str, version: str, folder: Path) -> Path:
    """A folder for PYTHONPATH in which `package` says that it is of `version`; its code is that of this environment."""
    there = folder / "older"
    info = there / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return there


@contextmanager
def web_server(pages: dict[str, str]) -> Iterator[str]:
    """Answers `pages` by path, 404 to the rest."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 404)
            self.end_headers()
            self.wfile.write((page or "").encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
