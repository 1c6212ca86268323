"""What Snakemake asks while it builds the graph: plan, passes, parameters, needs."""
