"""Jobs: what they are made from, how they change state, what is recorded of them and how they are shown."""

from service.jobs.lifecycle import enqueue as enqueue
