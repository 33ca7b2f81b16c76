"""The sensor ``lead_list.MachFiveListSensor``: waits for lists that somebody else bought, and spends nothing.

Begin with its ``execute``. It waits as the operators do: on the worker, or by ``triggers.lead_list``.
"""
