"""Deleted galleries whose rows go page by page, positions of erased images, engines of models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ERASED_PLACES = ("generation", "position", "revision")


def upgrade() -> None:
    op.add_column("galleries", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("galleries", sa.Column("searched_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("models", sa.Column("engine", sa.JSON(none_as_null=True), nullable=True))
    for name in _ERASED_PLACES:
        op.add_column("erased_images", sa.Column(name, sa.Integer(), nullable=True))
    op.create_index("ix_erased_images_gallery_id_revision", "erased_images", ["gallery_id", "revision"])


def downgrade() -> None:
    op.drop_index("ix_erased_images_gallery_id_revision", "erased_images")
    for name in _ERASED_PLACES:
        op.drop_column("erased_images", name)
    op.drop_column("models", "engine")
    op.drop_column("galleries", "searched_at")
    op.drop_column("galleries", "deleted_at")
