"""The provider on an Airflow as teams run it: PostgreSQL, Redis, two of each process that may be there twice.

`python -m tests.distributed` and `test_distributed.py` do one run and balance its books. Begin with `plan.py`, which
holds all figures; `run.py` is the run, `airflow.py` the processes, `report.py` what has to come out. The killing of
processes and the accounts are those of `tests/chaos`.
"""
