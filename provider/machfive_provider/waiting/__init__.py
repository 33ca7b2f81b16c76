"""Waiting until a list is written, or until the workspace has a free slot. Only GETs are sent from here.

Begin with ``decision``: what one poll of a list means, and the loop of a worker. ``poller`` polls for all triggers of a
connection together. ``capacity_queue`` is the queue for the slots of a workspace; ``capacity`` waits in it on a worker,
``capacity_watcher`` in the triggerer. Poller and watcher send through ``shared_client``; ``per_loop`` holds what the
triggers of an event loop share. ``deferral`` has what operators ask before they defer. ``ended_lists`` finds lists that
have ended, for event triggers.
"""
