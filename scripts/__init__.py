"""What `make` runs: a real Airflow on this machine, for the example and for the end-to-end tests."""
