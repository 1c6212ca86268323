"""What every job does first: environment, lease, GPUs, network guard."""
