"""Networks that more than one method trains."""
