"""Declarations of data sets, sizes of files, clothes of people; labels and names as they are compared from now on."""

from __future__ import annotations

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LABELS = {
    "gallery_images": ("identity", "camera", "external_id"),
    "dataset_images": ("identity", "camera"),
}
_NAMED = ("datasets", "models", "galleries", "api_keys")


def upgrade() -> None:
    op.add_column("datasets", sa.Column("declaration", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("dataset_images", sa.Column("clothes", sa.String(), nullable=True))
    op.add_column("dataset_images", sa.Column("num_bytes", sa.BigInteger(), nullable=True))
    for table, columns in _LABELS.items():
        for column in columns:
            _compose_labels(table, column)
    for table in _NAMED:
        _compose_names(table)


def downgrade() -> None:
    op.drop_column("dataset_images", "num_bytes")
    op.drop_column("dataset_images", "clothes")
    op.drop_column("datasets", "declaration")


def _compose_labels(table: str, column: str) -> None:
    """Labels that mean the same become equal; one that is blank alone stays, since nothing would be left of it."""
    rows = sa.table(table, sa.column(column))
    for (label,) in op.get_bind().execute(sa.select(rows.c[column]).distinct()).all():
        if label is not None and (normal := _normal(label)) not in ("", label):
            op.execute(rows.update().where(rows.c[column] == label).values({column: normal}))


def _compose_names(table: str) -> None:
    """Names, which are unique, where the new one is free; the others are still found by their ids."""
    rows = sa.table(table, sa.column("id"), sa.column("name"))
    found = op.get_bind().execute(sa.select(rows.c.id, rows.c.name).order_by(rows.c.id)).all()
    taken = {name for _, name in found}
    for key, name in found:
        if (normal := _normal(name)) and normal not in taken:
            op.execute(rows.update().where(rows.c.id == key).values(name=normal))
            taken.add(normal)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
