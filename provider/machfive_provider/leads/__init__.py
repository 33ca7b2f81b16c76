"""What goes in: leads as a DAG has them, checked before anything is sent.

Begin with ``prepare``. ``files`` and ``tables`` read rows, ``spellings`` and ``columns`` say which column means what,
``matching`` makes a lead of a row, ``emails`` and ``values`` judge its texts, ``faults`` words what is wrong.
A CRM's column name is added to ``spellings``.
"""
