"""Operators: Data-Juicer's own, run from local folders, one Parquet of scores per shard."""
