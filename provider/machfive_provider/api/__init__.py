"""The MachFive API, without tasks and without Airflow's connections.

Begin with ``protocol``: each call once, as a request to send and a way to parse its response.
``models`` holds what is sent and received, ``error_responses`` turns a bad response into an exception,
``retries`` decides whether to send again, and ``client`` moves the bytes (httpx is imported there alone).
The API itself is described in ``docs/api.md``.
"""
