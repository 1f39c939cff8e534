"""API keys: made, listed, recognised and deleted."""
