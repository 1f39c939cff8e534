"""The hands: Celery workers that supervise jobs, and the processes that carry them out."""
