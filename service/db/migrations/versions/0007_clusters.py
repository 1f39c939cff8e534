"""Proposed persons: clusters of a gallery's images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("gallery_id", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(53), nullable=True),
        sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.id"], name="fk_clusters_gallery_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
    )
    op.create_index("ix_clusters_gallery_id", "clusters", ["gallery_id"])
    op.create_table(
        "cluster_images",
        sa.Column("cluster_id", sa.String(), nullable=False),
        sa.Column("image_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name="fk_cluster_images_cluster_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["gallery_images.id"], name="fk_cluster_images_image_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("cluster_id", "image_id", name="pk_cluster_images"),
    )
    op.create_index("ix_cluster_images_image_id", "cluster_images", ["image_id"])


def downgrade() -> None:
    op.drop_table("cluster_images")
    op.drop_table("clusters")
