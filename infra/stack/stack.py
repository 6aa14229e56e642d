"""Up, down and status of all parts, in order.

`up` keeps what works, starts what does not, and what hangs on that; where one part does not come up, it ends what it
has started and says which. `down` ends what any `up` of this folder has started, by process id.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from infra.stack import contents, processes
from infra.stack.parts import HOST, PORTS, STORE, Layout, Part, client_environment, own_environment, parts
from lnln.errors import RefusedError
from lnln.progress import line

ROOT = Path(__file__).parents[2]
# A part that hangs for this long is taken for dead and started again.
ANSWER_SECONDS = 20.0
DEPLOY_SECONDS = 300.0

State = Literal["works", "does not answer", "ended", "absent"]


@dataclass(frozen=True)
class Sight:
    """How a part is: `absent` was never started or was taken down, `ended` died. pid: None where it does not live."""

    name: str
    state: State
    pid: int | None
    ports: dict[str, int]
    log: Path


def up(
    folder: Path,
    *,
    cpus_per_node: int | None = None,
    deploy: bool = True,
    timeout_seconds: float = 120.0,
    say: Callable[[str], None] = line,
) -> Layout:
    """Bring every part to work, and the deployments of prefect.yaml to the server; what works already is kept.

    cpus_per_node: of each of Ray's two nodes; None for what the stack had, else for half of this machine's cores.
    timeout_seconds: that a part may take until it works.
    Raises RefusedError with the part that did not come up and its log, after what this call started was ended. An
    interrupt, by signal INT or TERM, ends that too.
    """
    _require_packages()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder), _interruptible():
        started: list[Part] = []
        before = _read_layout(folder)
        layout = _layout(folder, before, cpus_per_node)
        try:
            _start_all(layout, started, timeout_seconds, say)
            _write_environment(layout)
            if deploy:
                _deploy(layout, say)
        except BaseException:
            if started:
                say(f"taking down what was started: {', '.join(part.name for part in started)}")
            with _uninterrupted():
                _end_all(layout, started)
                if before is None:
                    _forget(layout)
            raise
    return layout


def down(folder: Path, *, say: Callable[[str], None] = line) -> list[str]:
    """End all parts, the last started first, with what they started; what is stored stays. The names of those ended."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder), _uninterrupted():
        try:
            layout = _read_layout(folder)
        except RefusedError:
            layout = None
            (folder / "stack.json").unlink()
        # Without its ports too: what runs is found by its records, or by what it was started with.
        layout = layout or Layout(folder, dict.fromkeys(PORTS, 0), 1, folder / "ray")
        ended = _end_all(layout, list(parts(layout)), say)
        _forget(layout)
    say(f"ended {', '.join(ended)}; what they stored is kept in {folder}" if ended else f"nothing ran of {folder}")
    return ended


def status(folder: Path) -> list[Sight]:
    """How each part is; empty where there is no stack."""
    layout = _read_layout(folder.resolve())
    return [] if layout is None else [_look(layout, part) for part in parts(layout)]


def _look(layout: Layout, part: Part) -> Sight:
    process = processes.find(part.name, layout.folder)
    if process is not None:
        state: State = "works" if _works(part) else "does not answer"
    else:
        state = "absent" if processes.read_record(part.name, layout.folder) is None else "ended"
    ports = {port: layout.ports[port] for port in part.ports}
    return Sight(
        part.name, state, None if process is None else process.pid, ports, processes.log_of(part.name, layout.folder)
    )


def _start_all(layout: Layout, started: list[Part], timeout_seconds: float, say: Callable[[str], None]) -> None:
    """In two waves, each all at once: first what needs nothing."""
    everything = parts(layout)
    for wave in ([part for part in everything if not part.needs], [part for part in everything if part.needs]):
        new = [part for part in wave if not _may_stay(layout, part, started)]
        deadline = time.monotonic() + timeout_seconds
        for part in new:
            _end(layout, part)
            started.append(part)
            processes.start(
                part.name,
                part.command,
                part.environment,
                folder=layout.folder,
                made_of=part.made_of,
            )
        for part in new:
            _wait_until_it_works(layout, part, deadline, timeout_seconds)
            if part.name == STORE:
                contents.put_back(layout, say)
            say(f"{part.name} works")
        kept = [part.name for part in wave if part not in new]
        if kept:
            say(f"{', '.join(kept)}: ran already")


def _may_stay(layout: Layout, part: Part, started: list[Part]) -> bool:
    """It lives, is what would be started, answers, and nothing that it needs was started anew."""
    record = processes.read_record(part.name, layout.folder)
    if processes.find(part.name, layout.folder) is None or record is None or record.made_of != part.made_of:
        return False
    if any(other.name in part.needs for other in started):
        return False
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _works(part):
        if time.monotonic() > deadline or processes.find(part.name, layout.folder) is None:
            return False
        time.sleep(0.5)
    return True


def _wait_until_it_works(layout: Layout, part: Part, deadline: float, timeout_seconds: float) -> None:
    log = processes.log_of(part.name, layout.folder)
    while not _works(part):
        if processes.find(part.name, layout.folder) is None:
            raise RefusedError(f"{part.name} of the stack ended while it was started; {log} says why")
        if time.monotonic() > deadline:
            raise RefusedError(
                f"{part.name} of the stack does not answer on {_addresses(layout, part)} {timeout_seconds:g} s after "
                f"it was started; {log} may say why"
            )
        time.sleep(0.2)


def _works(part: Part) -> bool:
    with suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
        return part.is_ready()
    return False


def _addresses(layout: Layout, part: Part) -> str:
    return ", ".join(f"{HOST}:{layout.ports[port]}" for port in part.ports)


def _end_all(layout: Layout, which: list[Part], say: Callable[[str], None] = line) -> list[str]:
    """In waves, each all at once: what needs others, the others, and last the store, with what it holds put away."""
    ended = []
    for wave in (
        [part for part in which if part.needs],
        [part for part in which if not part.needs and part.name != STORE],
        [part for part in which if part.name == STORE],
    ):
        if not wave:
            continue
        if wave[0].name == STORE and processes.find(STORE, layout.folder) is not None and _works(wave[0]):
            try:
                contents.put_away(layout)
            except Exception as error:  # whatever it is, the process has to end
                say(f"what the store held could not be put away ({' '.join(str(error).split())})")
        with ThreadPoolExecutor(len(wave)) as threads:
            nums = list(threads.map(lambda part: _end(layout, part), wave))
        ended += [part.name for part, num in zip(wave, nums, strict=True) if num]
    return ended


def _end(layout: Layout, part: Part) -> int:
    return processes.end(part.name, folder=layout.folder, grace_seconds=part.grace_seconds)


def _deploy(layout: Layout, say: Callable[[str], None]) -> None:
    """Unless the server has the same deployments already."""
    file, mark, log = ROOT / "prefect.yaml", layout.folder / "deployed", processes.log_of("deploy", layout.folder)
    sources = [file, *sorted((ROOT / "pipelines" / "flows").glob("*.py"))]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=own_environment(layout),
            start_new_session=True,
        )
        try:
            code = child.wait(DEPLOY_SECONDS)
        except BaseException as error:
            child.kill()
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RefusedError(
                    f"`prefect deploy` took longer than {DEPLOY_SECONDS:g} s; {log} may say why"
                ) from None
            raise
    if code:
        raise RefusedError(f"`prefect deploy` of {file} ended with {code}; {log} says why")
    mark.write_text(digest)
    say("prefect.yaml is deployed")


def _layout(folder: Path, before: Layout | None, cpus_per_node: int | None) -> Layout:
    """That of the `up` before, with new ports for those that somebody else has taken meanwhile."""
    if before is None:
        layout = Layout(folder, _free_ports(PORTS), max(1, (os.cpu_count() or 1) // 2), folder / "ray")
    else:
        layout = before
    if cpus_per_node is not None:
        layout = replace(layout, cpus_per_node=cpus_per_node)
    taken = [
        port
        for part in parts(layout)
        if processes.find(part.name, folder) is None
        for port in part.ports
        if not _is_free(layout.ports[port])
    ]
    layout = replace(layout, ports={**layout.ports, **_free_ports(tuple(taken))})
    for name in ("tmp", "cache", "ray", "dask"):
        (folder / name).mkdir(exist_ok=True)
    if layout.needs_link and not (layout.ray_folder != folder / "ray" and layout.ray_folder.is_dir()):
        link = Path(tempfile.mkdtemp(prefix="lnln-")) / "r"
        link.symlink_to(folder / "ray")
        (folder / "short").unlink(missing_ok=True)
        (folder / "short").symlink_to(link.parent)  # for `_forget`, whatever becomes of stack.json
        layout = replace(layout, ray_folder=link)
    token = folder / "ray-token"
    if not token.exists():
        _write_for_owner(token, secrets.token_hex(16))
    (folder / "stack.json").write_text(layout.to_json())
    return layout


def _read_layout(folder: Path) -> Layout | None:
    path = folder / "stack.json"
    try:
        values = json.loads(path.read_text())
        values |= {"folder": folder, "ray_folder": Path(values["ray_folder"])}
        layout = Layout(**values)
        if set(layout.ports) != set(PORTS):
            raise KeyError("ports")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RefusedError(
            f"{path} is damaged ({' '.join(str(error).split())}); `python -m infra.stack down --folder {folder}` ends "
            "what runs of it and removes it"
        ) from error
    return layout


def _forget(layout: Layout) -> None:
    """The link to Ray's folder, and addresses that lead nowhere now."""
    short = layout.folder / "short"
    if short.is_symlink():
        with suppress(OSError):
            (short.readlink() / "r").unlink()
            short.readlink().rmdir()
        short.unlink()
    (layout.folder / "stack.env").unlink(missing_ok=True)
    shutil.rmtree(layout.folder / "tmp", ignore_errors=True)


def _write_environment(layout: Layout) -> None:
    """`stack.env`, for `source`, which its owner alone may read."""
    path = layout.folder / "stack.env"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in client_environment(layout).items()]
    _write_for_owner(path, "\n".join(["# Of the stack on this machine: source this file.", *lines]) + "\n")


def _write_for_owner(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A port for each that nobody is given unasked: not of those from which the system, or Ray, takes one for anybody
    who wants some port. Else a part might find its own taken by the moment it starts."""
    low, high = 20000, 32768
    with suppress(OSError, ValueError):
        high = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(low, high) if high - low > 1000 else range(low, 65536))
    random.SystemRandom().shuffle(candidates)
    free = (port for port in candidates if _is_free(port))
    found = list(itertools.islice(free, len(names)))
    if len(found) < len(names):
        raise RefusedError(f"the stack needs {len(names)} free ports of {HOST}, and has found {len(found)}")
    return dict(zip(names, found, strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed a moment ago is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """RefusedError where another process brings this stack up or down."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RefusedError(f"another `up` or `down` is at work in {folder}; wait for it") from error
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt, signal.SIGINT: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not keep the first from its work."""
    with _handling(dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal.SIG_IGN)):
        yield


@contextmanager
def _handling(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_packages() -> None:
    from importlib.util import find_spec

    if sys.platform != "linux":
        raise RefusedError(
            f"the stack is for Linux, got {sys.platform}: Ray's nodes there cannot tell each other apart"
        )

    missing = [
        name for name, module in (("moto[server]", "moto"), ("ray[default]", "aiohttp_cors")) if not find_spec(module)
    ]
    if missing:
        raise RefusedError(f"the stack needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[dev]'")
