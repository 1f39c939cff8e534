"""Search: the engine in the API process, from a query to an answer."""
