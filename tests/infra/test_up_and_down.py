"""Order, health, repair and interruption of a stack, with small servers in place of the real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.stack import processes, stack
from infra.stack.__main__ import main
from infra.stack.parts import PORTS, Layout, Part
from lnln.errors import RefusedError
from tests.infra.stacks import processes_of

pytestmark = pytest.mark.slow

Make = Callable[[Layout], tuple[Part, ...]]
# "first", on which "second" hangs, and "third", which needs nobody; by the ports of real parts.
NAMES = {"first": "dask", "second": "ray", "third": "prefect"}


def small_parts(layout: Layout) -> tuple[Part, ...]:
    return tuple(server(layout, name, ("first",) if name == "second" else ()) for name in NAMES)


def server(layout: Layout, name: str, needs: tuple[str, ...] = ()) -> Part:
    port = NAMES[name]
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(layout.ports[port]))

    def answers() -> bool:
        with urllib.request.urlopen(layout.url(port), timeout=1):
            return True

    return Part(name, command, dict(os.environ), (port,), answers, needs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(stack, "parts", small_parts)
    monkeypatch.setattr(stack, "ANSWER_SECONDS", 1.0)
    made = tmp_path / "stack"
    yield made
    stack.down(made)
    assert not processes_of(made)
    links = [path for path in Path(tempfile.gettempdir()).glob("lnln-*/r") if path.is_symlink()]
    assert str(made / "ray") not in [str(path.readlink()) for path in links]


def up(folder: Path, timeout_seconds: float = 30) -> list[str]:
    """What was said."""
    lines: list[str] = []
    stack.up(folder, deploy=False, timeout_seconds=timeout_seconds, say=lines.append)
    return lines


def pids(folder: Path) -> dict[str, int | None]:
    return {sight.name: sight.pid for sight in stack.status(folder)}


def states(folder: Path) -> dict[str, str]:
    return {sight.name: sight.state for sight in stack.status(folder)}


def test_what_works_is_kept_and_down_ends_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stack.status(folder) == [] and main(["status", "--folder", str(folder)]) == 1
    assert up(folder) == ["first works", "third works", "second works"]
    before = pids(folder)
    assert up(folder) == ["first, third: ran already", "second: ran already"]
    assert pids(folder) == before and set(states(folder).values()) == {"works"}
    assert main(["status", "--folder", str(folder), "--json"]) == 0
    assert stack.down(folder) == ["second", "first", "third"]
    assert set(states(folder).values()) == {"absent"} and not (folder / "stack.env").exists()
    assert stack.down(folder) == []
    assert up(folder)[0] == "first works"


def test_what_died_is_started_again_with_what_hangs_on_it(folder: Path) -> None:
    up(folder)
    before = pids(folder)
    pid = before["first"]
    assert pid is not None
    psutil.Process(pid).kill()
    while states(folder)["first"] != "ended":
        time.sleep(0.05)
    assert up(folder) == ["first works", "third: ran already", "second works"]
    after = pids(folder)
    assert after["third"] == before["third"] and after["first"] != before["first"]
    assert after["second"] != before["second"]


def test_what_hangs_is_started_again(folder: Path) -> None:
    up(folder)
    before = pids(folder)["third"]
    assert before is not None
    os.kill(before, signal.SIGSTOP)
    assert states(folder)["third"] == "does not answer"
    assert "third works" in up(folder)
    assert pids(folder)["third"] != before


def test_a_port_that_is_taken_meanwhile_is_left_to_its_new_owner(folder: Path) -> None:
    layout = stack.up(folder, deploy=False, say=lambda _: None)
    stack.down(folder)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", layout.ports["dask"]))
        taken.listen()
        again = stack.up(folder, deploy=False, say=lambda _: None)
    changed = {name for name in PORTS if again.ports[name] != layout.ports[name]}
    assert changed == {"dask"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('no way')", "second of the stack ended while it was started; .*second.log says why"),
        ("import time; time.sleep(99)", "second of the stack does not answer on 127.0.0.1:[0-9]+ 2 s after"),
    ],
)
def test_a_part_that_does_not_come_up_is_named_and_takes_the_others_down(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    def broken(layout: Layout) -> tuple[Part, ...]:
        first, second, third = small_parts(layout)
        return first, replace(second, command=(sys.executable, "-c", code)), third

    monkeypatch.setattr(stack, "parts", broken)
    with pytest.raises(RefusedError, match=said):
        up(folder, timeout_seconds=2)
    assert not processes_of(folder)
    monkeypatch.setattr(stack, "parts", small_parts)
    up(folder)
    kept = pids(folder)
    monkeypatch.setattr(stack, "parts", broken)  # another second, for which what ran before is not ended
    with pytest.raises(RefusedError, match=said):
        up(folder, timeout_seconds=2)
    assert {name: pid for name, pid in pids(folder).items() if pid is not None} == {
        "first": kept["first"],
        "third": kept["third"],
    }


def test_two_at_once_are_refused(folder: Path) -> None:
    up(folder)
    with stack._alone(folder.resolve()):
        for action in (lambda: up(folder), lambda: stack.down(folder)):
            with pytest.raises(RefusedError, match="is at work in"):
                action()
        assert set(states(folder).values()) == {"works"}


def test_what_runs_is_ended_though_its_folder_is_gone(folder: Path) -> None:
    up(folder)
    for path in (folder / "stack.json", *(folder / "run").iterdir()):
        path.unlink()
    assert sorted(stack.down(folder)) == ["first", "second", "third"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": {}}', '{"folder": "/", "ports": 3}'])
def test_a_damaged_record_of_the_stack(folder: Path, text: str) -> None:
    up(folder)
    (folder / "stack.json").write_text(text)
    with pytest.raises(RefusedError, match=r"stack.json is damaged"):
        up(folder)
    assert main(["status", "--folder", str(folder)]) == 1
    assert sorted(stack.down(folder)) == ["first", "second", "third"]
    assert stack.status(folder) == []


def test_a_stack_is_for_its_owner(folder: Path) -> None:
    up(folder)
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("stack.env", "ray-token"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """The real one: at that time Prefect, Dask and Ray are on their way."""
    made = tmp_path / "stack"
    command = [sys.executable, "-m", "infra.stack", "up", "--folder", str(made), "--no-deploy"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    while len(list((made / "run").glob("*.json")) if made.exists() else []) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert "taking down what was started: store, prefect-server" in said
    assert not processes_of(made)
    assert not list((made / "run").glob("*.json"))


def test_one_that_is_killed_while_it_starts_is_taken_down_later(tmp_path: Path) -> None:
    made = tmp_path / "stack"
    command = [sys.executable, "-m", "infra.stack", "up", "--folder", str(made), "--no-deploy"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    while processes.find("ray-head", made) is None:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert processes_of(made)
    stack.down(made)
    assert not processes_of(made)


def test_ports_are_none_that_the_system_gives_to_anybody() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = stack._free_ports(PORTS)
    assert found.keys() == set(PORTS) and len(set(found.values())) == len(PORTS)
    assert first <= 21000 or all(20000 <= port < first for port in found.values())


def test_an_answer_that_is_not_http_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of another program that has got the port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        def speak() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b":\x01\x02 no http\r\n\r\n")

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        layout = Layout(folder, {**dict.fromkeys(PORTS, 0), "dask": port}, 1, folder)
        assert not stack._works(server(layout, "first"))
        thread.join(10)
