"""Where records and pictures lie: one module for each kind of file. `configuration/storage.py` says what one holds."""
