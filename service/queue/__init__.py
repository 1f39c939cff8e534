"""The queue by which work reaches the workers: Celery, with job ids, on Redis or on an embedded broker."""
