"""The tables: one class each, columns only. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from service.db.tables.access import ApiKey as ApiKey
from service.db.tables.access import AuditEntry as AuditEntry
from service.db.tables.access import PendingRemoval as PendingRemoval
from service.db.tables.access import RememberedAnswer as RememberedAnswer
from service.db.tables.base import Base as Base
from service.db.tables.base import JsonObject as JsonObject
from service.db.tables.datasets import Dataset as Dataset
from service.db.tables.datasets import DatasetImage as DatasetImage
from service.db.tables.galleries import Cluster as Cluster
from service.db.tables.galleries import ClusterImage as ClusterImage
from service.db.tables.galleries import ErasedImage as ErasedImage
from service.db.tables.galleries import Feedback as Feedback
from service.db.tables.galleries import Gallery as Gallery
from service.db.tables.galleries import GalleryImage as GalleryImage
from service.db.tables.galleries import PendingErasure as PendingErasure
from service.db.tables.jobs import Job as Job
from service.db.tables.jobs import JobDataset as JobDataset
from service.db.tables.jobs import JobEvent as JobEvent
from service.db.tables.jobs import JobMetric as JobMetric
from service.db.tables.jobs import WebhookDelivery as WebhookDelivery
from service.db.tables.jobs import Worker as Worker
from service.db.tables.models import Evaluation as Evaluation
from service.db.tables.models import Model as Model
