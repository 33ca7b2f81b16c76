"""The MachFive page in the Airflow UI: what runs, how far it is, what it cost, what failed and why.

``plugin`` registers it with Airflow, ``app`` answers its requests. ``snapshot`` keeps the lists of a connection,
``tasks`` reads what Airflow knows of the tasks, ``rows`` joins the two, ``table`` filters and sorts; the last two are
pure functions. Begin with ``rows``.
"""
