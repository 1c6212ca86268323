"""From raw pairs to records: reading, image opening, rows."""
