"""Airflow's hook for MachFive: begin with ``machfive``, which has every call of the API as a method.

``connection`` reads and checks the fields of an Airflow connection and writes what the Test button says; ``form``
describes the connection form.
"""
