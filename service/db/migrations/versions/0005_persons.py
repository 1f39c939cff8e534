"""Labels of images that change: counted by their gallery, and the revision at which each did."""

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


def downgrade() -> None:
    op.drop_index("ix_gallery_images_edited", "gallery_images")
    op.drop_column("gallery_images", "edited_revision")
    op.drop_column("galleries", "edits")
