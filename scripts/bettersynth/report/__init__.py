"""The leaderboard and the page that a person reads after a run."""
