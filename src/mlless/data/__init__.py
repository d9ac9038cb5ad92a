"""From raw files to groups of rows in a folder (partition), and from there to a worker (holding).

``groups`` and ``manifest`` say what a data set is; ``readers`` parse raw formats, ``features`` and
``hashing`` turn raw columns into features (``layouts`` describes columns); ``partition`` deals rows to
groups (with ``request``, ``intake``, ``dealing``, ``spool`` and ``staging``); ``dataset`` opens the result;
``holding`` keeps a worker's groups and makes mini-batches of them (``assembly``). ``synthesis`` makes up raw
data (``synthetic`` ratings and clicks, ``synthetic_columns``, ``lettering``); ``movielens`` fetches published
ones (``download``).
"""
