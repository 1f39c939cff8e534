"""Removals that deletions have left to be done on disk, and images by their external id."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pending_erasures",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("gallery_id", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("rebuilt_position", sa.Integer(), nullable=True),
        sa.Column("file", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.id"], name="fk_pending_erasures_gallery_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_pending_erasures"),
    )
    op.create_index("ix_pending_erasures_gallery_id", "pending_erasures", ["gallery_id"])
    op.create_table(
        "pending_removals",
        sa.Column("path", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_pending_removals"),
    )
    op.create_index("ix_gallery_images_gallery_id_external_id", "gallery_images", ["gallery_id", "external_id"])


def downgrade() -> None:
    op.drop_index("ix_gallery_images_gallery_id_external_id", "gallery_images")
    op.drop_table("pending_removals")
    op.drop_table("pending_erasures")
