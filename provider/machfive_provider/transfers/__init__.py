"""From a database to leads, and from a list to a table, over any connection of Airflow's common-sql.

``sql_to_leads`` freezes what a query returns into shard files, over which the batch operator is mapped; ``shards``
keeps those files. ``list_to_sql`` writes the emails of a list to a table; ``results_table`` knows its columns. Both
reach the database through ``database``. Begin with ``SqlToMachFiveLeadsOperator.execute``.
"""
