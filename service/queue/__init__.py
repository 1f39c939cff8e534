"""How work reaches the workers: a Celery queue of job ids, on Redis or on an embedded broker."""
