"""Version and resources of a Ray cluster: `python -m lnln.doctor.ask_ray 10.0.0.1:6379`. See `child.py`.

A driver could only be where a node of the cluster is. So its head is asked, which answers from anywhere.
"""

from __future__ import annotations

import json
import os
from typing import Any

from lnln.doctor.child import NoAnswerError, answer

_ANSWER_SECONDS = 3.0


def look(address: str) -> dict[str, Any]:
    """ray, python: versions. num_nodes, num_cpus, num_gpus: of the nodes that are alive."""
    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(int(_ANSWER_SECONDS))  # noqa: SIM112
    return _by_client(address) if address.startswith("ray://") else _by_head(address)


def _by_head(address: str) -> dict[str, Any]:
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._private import services
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    if address == "auto":
        address = services.canonicalize_bootstrap_address_or_die(address)
    try:
        client = GcsClient(address=address)
        found = client.internal_kv_get(CLUSTER_METADATA_KEY, namespace=KV_NAMESPACE_CLUSTER, timeout=_ANSWER_SECONDS)
        nodes = client.get_all_node_info(timeout=_ANSWER_SECONDS)
    except Exception as error:
        raise _no_answer(error) from error
    metadata = json.loads(found)
    alive = [dict(node.resources_total) for node in nodes.values() if node.state == 0]
    return {
        "ray": metadata["ray_version"],
        "python": metadata["python_version"],
        "num_nodes": len(alive),
        "num_cpus": sum(resources.get("CPU", 0.0) for resources in alive),
        "num_gpus": sum(resources.get("GPU", 0.0) for resources in alive),
    }


def _by_client(address: str) -> dict[str, Any]:
    """By Ray Client, which compares versions itself."""
    import ray

    try:
        context = ray.init(address=address)
    except Exception as error:
        raise _no_answer(error) from error
    resources = ray.cluster_resources()
    return {
        "ray": context.ray_version,
        "python": context.python_version,
        "num_nodes": len(ray.nodes()),
        "num_cpus": resources.get("CPU", 0.0),
        "num_gpus": resources.get("GPU", 0.0),
    }


def _no_answer(error: Exception) -> NoAnswerError:
    text = " ".join(str(error).split())
    is_token = any(word in text.lower() for word in ("unauthenticated", "authentication", "unauthorized", "token"))
    return NoAnswerError(text[:300], "credentials" if is_token else "version" if "ersion mismatch" in text else "")


if __name__ == "__main__":
    answer(look)
