"""What comes out: the emails of a completed list, written and counted against what was paid for.

Begin with ``export.write_export``: it streams an export to a ``destination`` (a file or object that appears whole or
not at all) and counts it (``count``); ``shapes`` and ``parquet`` make rows of leads. ``report`` then compares the
figures with what was bought, tells the log and XCom, and fails the task where leads are missing.
"""
