"""What goes in: leads as a DAG has them, checked before anything is sent.

Begin with ``prepare``: ``read_leads`` takes a list, a JSON text or a file (``files``), ``prepare`` matches column names
to the API's fields, checks each lead and leaves out duplicates. A CRM's column name is added to ``_SPELLINGS`` there.
"""
