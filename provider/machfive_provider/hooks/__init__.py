"""Airflow's hook for MachFive: begin with ``machfive``, which has every call of the API as a method.

``lookup`` finds the Airflow connection, ``connection`` reads and checks its fields and writes what the Test button
says, ``form`` describes the connection form. ``campaigns`` finds a campaign by its name.
"""
