"""The common pipeline as one task group: leads in, checked, approved, bought, delivered.

``task_group`` puts it together from the operators of the other folders; begin with ``machfive_pipeline``. ``tasks`` has
the two tasks that only the pipeline needs, its check and its summary. ``approval`` asks a person before money is spent.
"""
