"""What a run saves: a checkpoint to continue from after every epoch, and the model that predicts without the run.

    save_checkpoint(folder, Checkpoint(weights, average, optimizer, progress))
    checkpoint = load_checkpoint(folder)
    save_model(folder, model, manifest)          # weights, config, tokenizer, what its features are

safetensors and JSON only, nothing is unpickled. A folder appears under its name when it is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lnln.config import to_dict
from lnln.data.digest import digest_file
from lnln.data.manifest import FeatureManifest
from lnln.data.simulated_text import Simulation, with_simulation
from lnln.data.store import Store
from lnln.data.verify import is_intact
from lnln.data.wordpiece import UNCASED, tokenizer_bytes
from lnln.errors import RefusedError

# Raised when the meaning of a checkpoint's files changes.
FORMAT = 1
STATE = "state.json"
WEIGHTS = "model.safetensors"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.safetensors"
FEATURES = "features.json"
TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A run after an epoch. Random states are not part of it: every epoch begins with seeds of its own.

    weights: the model's state_dict. average: the exponential average of it, None where the run keeps none.
    optimizer: `<parameter>/<state>` tensors. progress: JSON values (epoch, history, best epoch).
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Tensor]
    progress: dict[str, Any]

    @property
    def selected(self) -> dict[str, Tensor]:
        """The weights that are validated and kept: the average where there is one."""
        return self.weights if self.average is None else self.average


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `folder`, which must not exist."""
    with _appearing(folder) as beside:
        tensors = {WEIGHTS: checkpoint.weights, OPTIMIZER: checkpoint.optimizer}
        if checkpoint.average is not None:
            tensors[AVERAGE] = checkpoint.average
        for name, values in tensors.items():
            save_file(_independent(values), beside / name)
        files = {name: describe_file(beside / name) for name in tensors}
        content = {"format": FORMAT, "files": files, "progress": checkpoint.progress}
        _write_json(beside / STATE, {"content": content, "sha256": _digest(content)})


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, on the CPU. RefusedError names the file that is missing or damaged."""
    content = _read_state(folder)
    if content["format"] != FORMAT:
        raise RefusedError(f"checkpoint {folder.name} has format {content['format']}, this version reads {FORMAT}")
    tensors = {}
    for name, expected in content["files"].items():
        if name not in (WEIGHTS, AVERAGE, OPTIMIZER):
            raise RefusedError(f"checkpoint {folder.name}: {STATE} names an unknown file {name!r}")
        path = folder / name
        if not path.is_file() or describe_file(path) != expected:
            raise RefusedError(f"checkpoint {folder.name}: {name} is missing or does not have its SHA-256")
        tensors[name] = _read(path)
    if not {WEIGHTS, OPTIMIZER} <= tensors.keys():
        raise RefusedError(f"checkpoint {folder.name}: {STATE} must name {WEIGHTS} and {OPTIMIZER}")
    return Checkpoint(tensors[WEIGHTS], tensors.get(AVERAGE), tensors[OPTIMIZER], content["progress"])


def read_progress(store: Store, folder: str) -> dict[str, Any]:
    """What the checkpoint in `folder` of the store says of the run, once every file of it is as it was written.

    RefusedError names the one that is missing or damaged.
    """
    name = folder.rpartition("/")[2]
    try:
        data = store.read(f"{folder}/{STATE}")
    except FileNotFoundError:
        data = b""
    content = _content_of(data, name)
    for file, entry in content["files"].items():
        if not is_intact(store, f"{folder}/{file}", int(entry["num_bytes"]), str(entry["sha256"])):
            raise RefusedError(f"checkpoint {name}: {file} is missing or does not have its SHA-256")
    return dict(content["progress"])


def upload_checkpoint(source: Path, store: Store, folder: str) -> None:
    """Copy the checkpoint in `source` to `folder` of the store, in place of what an earlier attempt left there.

    Each file appears when it is whole, and the one that names the others last: until then it is no checkpoint.
    """
    store.remove(f"{folder}/{STATE}")
    for path in sorted(source.iterdir(), key=lambda path: (path.name == STATE, path.name)):
        store.upload(path, f"{folder}/{path.name}")


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state_dict to the file `path`, from whatever device it lies on."""
    save_file(_independent(weights), path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in `path`, on the CPU. RefusedError where it is no whole safetensors file."""
    return _read(path)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, so that it does not hang on the order of its groups."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. RefusedError where `tensors` belong to another model."""
    parameters = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, key = name.rpartition("/")
        states.setdefault(parameter, {})[key] = value
    unknown = sorted(states.keys() - parameters.keys())
    if unknown:
        raise RefusedError(f"the checkpoint's optimizer has a state for {unknown[0]}, which the model does not have")
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {parameter: position for position, parameter in enumerate(order)}
    packed = optimizer.state_dict()
    packed["state"] = {index[parameters[name]]: values for name, values in states.items()}
    optimizer.load_state_dict(packed)


def save_model(folder: Path, model: nn.Module, manifest: FeatureManifest, simulation: Simulation | None = None) -> None:
    """Write all that prediction needs to `folder`, which must not exist.

    model.safetensors and config.json (`from_pretrained` reads them), features.json (which features the model takes, and
    which simulated text), and tokenizer.json where the corpus was read by a vocabulary that is at hand.
    """
    with _appearing(folder) as beside:
        card = beside / "README.md"
        card.touch()  # else huggingface_hub writes one of its own; `lnln publish` writes ours
        model.save_pretrained(beside)  # type: ignore[operator]
        card.unlink()
        _write_json(beside / FEATURES, feature_contract(manifest, simulation))
        if manifest.tokenizer == UNCASED:
            (beside / TOKENIZER).write_bytes(tokenizer_bytes())


def feature_contract(manifest: FeatureManifest, simulation: Simulation | None = None) -> dict[str, Any]:
    """Which features a model was trained on, as JSON values: enough to refuse others, and to make them of clips.

    `extraction` is the config of the extraction, `extraction_version` and `decoded_by` say by what clips were read;
    they are None where the features were imported. `simulation`, of a model that reads simulated text, says what made
    that.
    """
    spec = manifest.spec()
    return {
        "corpus": manifest.corpus,
        "feature_id": manifest.feature_id,
        "manifest_digest": manifest.digest(),
        "synthetic": bool(manifest.source.get("synthetic", False)),
        "dims": dict(manifest.dims),
        "absent_modalities": list(manifest.absent_modalities()),
        "extractors": {modality: dict(extractor) for modality, extractor in manifest.extractors.items()},
        "extraction": None if manifest.extraction is None else dict(manifest.extraction.config),
        "extraction_version": None if manifest.extraction is None else manifest.extraction.version,
        "decoded_by": manifest.source.get("decoded_by"),
        "tokenizer": to_dict(manifest.tokenizer),
        "label_range": list(manifest.label_range),
        "spec": to_dict(spec if simulation is None else with_simulation(spec, simulation)),
        **({} if simulation is None else {"simulation": describe_simulation(simulation)}),
    }


def describe_simulation(simulation: Simulation) -> dict[str, Any]:
    """Which simulated text a model was trained on, and what made it."""
    return {
        "simulation_id": simulation.simulation_id,
        "digest": simulation.digest(),
        "dim": simulation.dim,
        "provider": to_dict(simulation.provider),
    }


def describe_file(path: Path) -> dict[str, Any]:
    """`num_bytes` and `sha256` of a file."""
    num_bytes, sha256 = digest_file(path)
    return {"num_bytes": num_bytes, "sha256": sha256}


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A hidden folder that becomes `folder` in one step once it is filled, and is gone if filling fails."""
    assert not folder.exists(), folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    beside.mkdir()
    try:
        yield beside
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them (tied weights do)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _read_state(folder: Path) -> dict[str, Any]:
    """What the checkpoint's own description says, once it is known to be as it was written."""
    try:
        data = (folder / STATE).read_bytes()
    except FileNotFoundError:
        data = b""
    return _content_of(data, folder.name)


def _content_of(data: bytes, name: str) -> dict[str, Any]:
    """The content of a description. RefusedError, naming the checkpoint, where it is not as it was written."""
    try:
        state = json.loads(data)
        content: dict[str, Any] = state["content"]
        is_whole = state["sha256"] == _digest(content)
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"checkpoint {name}: {STATE} is missing or damaged ({type(error).__name__})") from error
    if not is_whole:
        raise RefusedError(f"checkpoint {name}: {STATE} does not have the SHA-256 it states")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RefusedError(f"{path.name} is no whole safetensors file: {' '.join(str(error).split())}") from error
    return tensors
