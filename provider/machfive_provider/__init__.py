"""Apache Airflow provider for the MachFive API, which writes personalised cold-email sequences."""

__version__ = "0.1.0"
