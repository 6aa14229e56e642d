"""Ceph's S3 server on this machine, for tests: `radosgw` over a monitor and one store of objects in memory.

`tests/conftest.py` imports `radosgw_endpoint` and `radosgw_store_url`; a test that asks for them is marked `slow`, and
is skipped with the reason where Debian's packages are absent (`make radosgw` installs them). All files lie in pytest's
temporary folder, all ports are of 127.0.0.1, and what was started is ended by its process id.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
KEY = "lnln-test"
START_SECONDS = 120
_numbers = itertools.count()


@pytest.fixture(scope="session")
def radosgw_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that lives as long as the tests; its only user has KEY as both keys."""
    if missing := [name for name in PROGRAMS if _program(name) is None]:
        pytest.skip(f"no {', '.join(missing)} on this machine; `make radosgw` installs them (Debian, root)")
    with ExitStack() as stack:
        yield _start(tmp_path_factory.mktemp("ceph"), stack)


@pytest.fixture
def radosgw_store_url(radosgw_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket/prefix` of a new, empty bucket; the environment, which child processes inherit, leads to it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", radosgw_endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    from lnln.data.s3_client import filesystem

    bucket = f"bucket-{next(_numbers)}"
    filesystem().call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}/lnln"


def _start(folder: Path, stack: ExitStack) -> str:
    """A cluster of one monitor, one OSD in memory and one gateway; each ends with `stack`, the last first."""
    mon_port, gateway_port = _free_port(), _free_port()
    fsid = str(uuid.uuid4())
    for name in ("mon", "osd", "rgw", "log"):
        (folder / name).mkdir()
    conf = folder / "ceph.conf"
    # Without keys: whoever may reach a port of 127.0.0.1 may do all in this cluster. radosgw would want `secure` of the
    # monitor, which needs keys.
    conf.write_text(
        f"""[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
mon_data = {folder}/mon
osd_data = {folder}/osd
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/log/$name.log
pid_file = {folder}/$name.pid
keyring = {folder}/keyring
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_class_load_list = *
mon_allow_pool_size_one = true
mon_data_avail_warn = 0
mon_data_avail_crit = 0
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[client.rgw]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{gateway_port}
rgw_run_sync_thread = false
rgw_enable_usage_log = false
"""
    )

    def run(name: str, *arguments: str) -> str:
        program = _program(name)
        assert program
        done = subprocess.run(
            [program, "-c", str(conf), *arguments], capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
        if done.returncode:
            pytest.fail(
                f"{name} {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}{_logs(folder)}"
            )
        return done.stdout

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = _program(name)
        assert program
        return stack.enter_context(
            _running([program, "-f", "-c", str(conf), *arguments], folder / "log" / f"{name}.out")
        )

    monmap = str(folder / "monmap")
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    start("ceph-mon", "-i", "a")
    osd = str(uuid.uuid4())
    run("ceph", "--connect-timeout", "60", "osd", "new", osd)
    run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
    run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
    start("ceph-osd", "-i", "0")
    run(
        "radosgw-admin", "user", "create", "--uid=lnln", "--display-name=lnln", f"--access-key={KEY}", f"--secret={KEY}"
    )
    gateway = start("radosgw", "-n", "client.rgw")
    endpoint = f"http://127.0.0.1:{gateway_port}"
    _wait_until(lambda: _answers(endpoint), gateway, folder)
    return endpoint


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/usr/sbin"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if is_so():
            return
        time.sleep(0.1)
    pytest.fail(f"radosgw did not start{_logs(folder)}")


def _logs(folder: Path) -> str:
    """The end of each log."""
    return "".join(
        f"\n--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted((folder / "log").iterdir())
    )
