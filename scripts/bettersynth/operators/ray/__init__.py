"""Scoring on Ray, through Data-Juicer's Ray dataset."""
