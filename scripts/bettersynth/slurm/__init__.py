"""SLURM: what a cluster offers, which jobs of ours are in its queue, and a real one on this machine for tests."""
