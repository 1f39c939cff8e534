"""`reid reproduce`: the papers' tables and figures, each as data (`paper_*.py`), and one runner for all of them."""
