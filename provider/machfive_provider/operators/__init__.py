"""The operators: ``generate`` buys a batch, ``generate_single`` one lead, ``export`` writes the emails of a list.

All three build on ``base.ListWaitingOperator``, which waits for a list. The two that spend credits hand their leads to
``buying.Buyer``. ``parameters`` checks what was given. Begin with
``MachFiveGenerateBatchOperator.execute``.
"""
