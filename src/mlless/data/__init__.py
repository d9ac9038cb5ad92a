"""From raw files to mini-batches in a folder (partition), and from there to a worker (stream).

``batches`` and ``manifest`` say what a data set is; ``readers`` parse raw formats, ``features`` and
``hashing`` turn raw columns into features (``layouts`` describes columns); ``partition`` shuffles and
cuts (with ``request``, ``intake``, ``spool`` and ``staging``); ``dataset`` opens the result; ``stream``
hands mini-batches to a training loop. ``synthesis`` makes up raw data (``synthetic`` ratings and
clicks, ``synthetic_columns``, ``lettering``); ``movielens`` fetches published ones (``download``).
"""
