"""What everything else stands on: files written whole, digests, records, names and paths."""
