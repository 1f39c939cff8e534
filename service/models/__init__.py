"""Models: trained networks with what they were made from and what they reached."""
