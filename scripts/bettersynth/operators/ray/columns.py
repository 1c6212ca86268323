"""Columns of the blocks that go to a Ray and come back; apart from `filter`, which imports Data-Juicer."""

from __future__ import annotations

SHARD = "shard"
"""Column with the number of a sample's shard."""
STATS = "__dj__stats__"
"""Column (`data_juicer.utils.constant.Fields.stats`) of the stats, each as `operator.stat`."""
FACTS = "__dj__meta__"
"""Column (`Fields.meta`) in which a shard's first sample has what is known of the whole shard: JSON."""
