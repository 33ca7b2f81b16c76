"""Airflow's hook for MachFive: begin with ``machfive``, which has every call of the API as a method.

``connection`` reads and checks the fields of an Airflow connection, ``form`` describes the connection form, and
``diagnosis`` writes what the Test button says.
"""
