"""Looking before and after a run: explanations, estimates, status, drawings."""
