"""Raw rows, data sets, and what a worker reads of them.

- ``readers`` parse raw formats. ``features`` and ``hashing`` turn raw columns into features, and
``layout_files``
  read descriptions of columns.
- ``partition`` deals rows to groups, with ``request``, ``preparation``, ``dealing``, ``spool`` and
``staging``.
- ``groups`` and ``manifest`` say what a data set is. ``dataset`` opens one.
- ``holding`` keeps a worker's groups and makes mini-batches of them (``assembly``).
- ``synthesis`` makes up raw data (``synthetic``, ``synthetic_columns``, ``digits``). ``movielens`` fetches
  published ratings.
"""
