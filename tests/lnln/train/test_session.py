from __future__ import annotations

import subprocess
import sys

import pytest

from lnln.errors import RefusedError
from lnln.train.session import cluster_address, ray_session

# A process of its own, because Ray reads its environment when it is imported.
SCRIPT = """
import os, subprocess, sys
before = dict(os.environ)
if "early" in sys.argv:
    import ray
from lnln.train.session import ray_session
with ray_session(2):
    import ray
    assert ray.cluster_resources()["CPU"] == 2
    assert ray.util.get_node_ip_address() == "127.0.0.1"

    @ray.remote
    def address():
        return ray.util.get_node_ip_address(), os.environ["RAY_USAGE_STATS_ENABLED"]

    assert ray.get(address.remote()) == ("127.0.0.1", "0")
    with ray_session(5):
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()
    import psutil
    mine = {p.pid for p in psutil.Process().children(recursive=True)} | {os.getpid()}
    for connection in psutil.net_connections("inet"):
        if connection.pid in mine and connection.status == "LISTEN":
            name = psutil.Process(connection.pid).cmdline()
            is_loopback = connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
            # Ray's autoscaler shows its counters to anyone; nothing can be asked of it.
            assert is_loopback or any("monitor.py" in part for part in name), (connection, name)
assert not ray.is_initialized()
added = {name for name in os.environ if name not in before}
assert not [name for name in added if name in ("RAY_USAGE_STATS_ENABLED", "GLOO_SOCKET_IFNAME")], added
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["late", "early"])
def test_an_own_ray_is_quiet_alone_and_leaves_nothing(when: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, when], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:x"])
def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("a Ray that runs is used, whatever RAY_ADDRESS says")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RefusedError, match=r"RAY_ADDRESS is .*no Ray cluster answers"), ray_session(1):
        pass


@pytest.mark.parametrize("value", ["", "local"])
def test_no_address_is_this_machine(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() is None
