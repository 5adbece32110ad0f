"""FastDecode: the weights of a model in one place, attention near the cache in others.

The S-worker (`engine`, `smodel`) has the weights and no cache; R-workers (`superfs-rworker`, or one
inside the S-worker's process) own the keys and values of their sequences and attend. Of each layer
and mini-batch q, k and v of the new tokens go there, and o comes back.
"""
