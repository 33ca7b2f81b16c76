"""Triggers: what waits in the triggerer. They only send GETs.

``lead_list`` waits for lists, ``capacity`` for a free slot in the workspace, ``unanswered_purchase`` for a list that a
lost response may have created. ``events`` is what they hand to the task. Begin with ``lead_list``. No task waits for
``list_event``: it watches a workspace for an asset, and ``cursor_store`` keeps how far it has come.
"""
