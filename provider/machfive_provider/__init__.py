"""Apache Airflow provider for the MachFive API, which writes personalised cold-email sequences.

A DAG's author needs `operators`, `sensors` and `hooks`; `get_provider_info` lists everything that Airflow may load.
"""

__version__ = "0.1.0"
