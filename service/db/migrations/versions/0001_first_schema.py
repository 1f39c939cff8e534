"""First schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_JSON = sa.JSON(none_as_null=True)
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_api_keys()
    _create_audit()
    _create_idempotency()
    _create_jobs()
    _create_workers()
    _create_datasets()
    _create_job_events()
    _create_job_metrics()
    _create_models()
    _create_dataset_images()
    _create_evaluations()
    _create_galleries()
    _create_job_datasets()
    _create_erased_images()
    _create_gallery_images()


def downgrade() -> None:
    for table in (
        "gallery_images",
        "erased_images",
        "job_datasets",
        "galleries",
        "evaluations",
        "dataset_images",
        "models",
        "job_metrics",
        "job_events",
        "datasets",
        "workers",
        "jobs",
        "idempotency",
        "audit",
        "api_keys",
    ):
        op.drop_table(table)


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("last_used_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _COUNTER, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("detail", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at", "audit", ["at"])


def _create_idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("body_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", _JSON, nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", "api_key_id", "method", "path", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lease_until", _INSTANT, nullable=True),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("progress", _JSON, nullable=True),
        sa.Column("metrics", _JSON, nullable=True),
        sa.Column("result", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("queued_at", _INSTANT, nullable=False),
        sa.Column("sent_at", _INSTANT, nullable=True),
        sa.Column("started_at", _INSTANT, nullable=True),
        sa.Column("finished_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_kind", "jobs", ["kind"])
    op.create_index("ix_jobs_state_queued_at", "jobs", ["state", "queued_at"])


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("queues", _JSON, nullable=False),
        sa.Column("heartbeat_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workers"),
    )


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("detected_format", sa.String(), nullable=True),
        sa.Column("variant", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("splits", _JSON, nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("report", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("uploaded", sa.Boolean(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_datasets_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
    )


def _create_job_events() -> None:
    op.create_table(
        "job_events",
        sa.Column("id", _COUNTER, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_events_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_job_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_events_job_id_id", "job_events", ["job_id", "id"])


def _create_job_metrics() -> None:
    op.create_table(
        "job_metrics",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", _COUNTER, autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_metrics_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name="pk_job_metrics"),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("lineage", _JSON, nullable=False),
        sa.Column("embedding_size", sa.Integer(), nullable=False),
        sa.Column("preprocessing", _JSON, nullable=False),
        sa.Column("files", _JSON, nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_models_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
    )


def _create_dataset_images() -> None:
    op.create_table(
        "dataset_images",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("captured_at", _INSTANT, nullable=True),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_dataset_images_dataset_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_images"),
        sa.UniqueConstraint("dataset_id", "split", "position", name="uq_dataset_images_dataset_id_split_position"),
    )
    op.create_index("ix_dataset_images_dataset_id_camera", "dataset_images", ["dataset_id", "camera"])
    op.create_index("ix_dataset_images_dataset_id_identity", "dataset_images", ["dataset_id", "identity"])


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("rerank", sa.String(), nullable=False),
        sa.Column("reranker_id", sa.String(), nullable=True),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("protocol", _JSON, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_evaluations_job_id"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_evaluations_model_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_dataset_id", "evaluations", ["dataset_id"])
    op.create_index("ix_evaluations_model_id", "evaluations", ["model_id"])


def _create_galleries() -> None:
    op.create_table(
        "galleries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("reranker_id", sa.String(), nullable=True),
        sa.Column("index_kind", sa.String(), nullable=False),
        sa.Column("index", _JSON, nullable=True),
        sa.Column("maps", _JSON, nullable=True),
        sa.Column("statistics", _JSON, nullable=True),
        sa.Column("keep_images", sa.Boolean(), nullable=False),
        sa.Column("retention_days", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("next_position", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("deletions", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_galleries_job_id"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_galleries_model_id"),
        sa.ForeignKeyConstraint(["reranker_id"], ["models.id"], name="fk_galleries_reranker_id"),
        sa.PrimaryKeyConstraint("id", name="pk_galleries"),
        sa.UniqueConstraint("name", name="uq_galleries_name"),
    )
    op.create_index("ix_galleries_model_id", "galleries", ["model_id"])
    op.create_index("ix_galleries_reranker_id", "galleries", ["reranker_id"])


def _create_job_datasets() -> None:
    op.create_table(
        "job_datasets",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_job_datasets_dataset_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_datasets_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "dataset_id", name="pk_job_datasets"),
    )
    op.create_index("ix_job_datasets_dataset_id", "job_datasets", ["dataset_id"])


def _create_erased_images() -> None:
    op.create_table(
        "erased_images",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("gallery_id", sa.String(), nullable=False),
        sa.Column("erased_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.id"], name="fk_erased_images_gallery_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_erased_images"),
    )
    op.create_index("ix_erased_images_gallery_id", "erased_images", ["gallery_id"])


def _create_gallery_images() -> None:
    op.create_table(
        "gallery_images",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("gallery_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("rebuilt_position", sa.Integer(), nullable=True),
        sa.Column("identity", sa.String(), nullable=True),
        sa.Column("camera", sa.String(), nullable=True),
        sa.Column("captured_at", _INSTANT, nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("dataset_image_id", sa.String(), nullable=True),
        sa.Column("file", sa.String(), nullable=True),
        sa.Column("added_revision", sa.Integer(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.id"], name="fk_gallery_images_gallery_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_gallery_images"),
        sa.UniqueConstraint("gallery_id", "dataset_image_id", name="uq_gallery_images_gallery_id_dataset_image_id"),
        sa.UniqueConstraint("gallery_id", "position", name="uq_gallery_images_gallery_id_position"),
    )
    op.create_index("ix_gallery_images_gallery_id_camera", "gallery_images", ["gallery_id", "camera"])
    op.create_index("ix_gallery_images_gallery_id_created_at", "gallery_images", ["gallery_id", "created_at"])
    op.create_index("ix_gallery_images_gallery_id_identity", "gallery_images", ["gallery_id", "identity"])
