"""Datasets: the rows that each one has, by its verb."""
