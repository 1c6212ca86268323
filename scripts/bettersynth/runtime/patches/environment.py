"""What libraries read from the environment: switches that keep them off the network, and places among processes."""

from __future__ import annotations

import os

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "UV_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Read once, when a library is imported."""

RANKS = frozenset({"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
LAUNCHERS = ("TORCHELASTIC_", "ACCELERATE_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMI_")


def forget_ranks() -> None:
    """Take away what a platform or a launcher around us left: accelerate would wait for processes that there are not.

    Those that `training.mgm.processes` starts get their own.
    """
    for name in list(os.environ):
        if name in RANKS or name.startswith(LAUNCHERS):
            del os.environ[name]
