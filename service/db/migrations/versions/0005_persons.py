"""Labels of images that change, counted by their gallery and with the revision; feedback on pairs of images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_EDITED = sa.text("edited_revision IS NOT NULL")


def upgrade() -> None:
    op.add_column("galleries", sa.Column("edits", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("gallery_images", sa.Column("edited_revision", sa.Integer(), nullable=True))
    op.create_index(
        "ix_gallery_images_edited",
        "gallery_images",
        ["gallery_id", "edited_revision"],
        sqlite_where=_EDITED,
        postgresql_where=_EDITED,
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("gallery_id", sa.String(), nullable=False),
        sa.Column("first_image_id", sa.String(), nullable=False),
        sa.Column("second_image_id", sa.String(), nullable=False),
        sa.Column("same", sa.Boolean(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.id"], name="fk_feedback_gallery_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("first_image_id", "second_image_id", name="uq_feedback_first_image_id_second_image_id"),
    )
    for name in ("gallery_id", "second_image_id"):
        op.create_index(f"ix_feedback_{name}", "feedback", [name])


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_index("ix_gallery_images_edited", "gallery_images")
    op.drop_column("gallery_images", "edited_revision")
    op.drop_column("galleries", "edits")
