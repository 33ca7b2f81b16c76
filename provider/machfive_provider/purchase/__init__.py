"""One batch, bought once, although the API has no idempotency key (``docs/retries-and-cost.md``).

Begin with ``decision``: pure rules that say whether to adopt a list, buy, wait or fail. ``purchase`` says what is to be
bought and ``tag`` gives it the name by which later attempts find it. ``record`` keeps what one attempt leaves for the
next. ``buy`` searches, asks ``decision`` and sends the one paid request. ``options`` checks the options of the request.
"""
