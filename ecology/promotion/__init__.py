"""Who is best of those who passed, whether traffic agrees, and what the alias names afterwards.

``fitness`` ranks, ``archive`` remembers the front across runs, ``traffic`` reads recorded requests, ``canary``
tries the winner on a little of it, ``promote`` decides. All of it is pure but for reading the recorded requests.
"""
