"""Person re-identification methods: networks, losses, sampling, training, evaluation, retrieval.

Knows nothing of HTTP, queues or SQL. Importing it alone imports nothing: reading data sets needs no PyTorch.
"""
