"""The rules of the namespace: what every operation does, over a `Txn`, without any IO.

One verb a file. A rule takes (txn, caller, arguments), checks everything first, and changes only
after its last check: an FsError means that nothing was changed. The metadata daemon runs the
rules on LMDB; tests run them on a store in memory; a mount with an exclusive lease runs the same
functions on its cache and log.
"""
