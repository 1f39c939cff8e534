"""Files that jobs put into a model's folder beside its weights, listed in its row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.db.tables import Model
from service.jobs.lifecycle import renew
from service.models.lifecycle import describe_file
from service.storage import flush_file, replace_file
from worker.work import Work


def publish_files(work: Work, files: Sequence[Path]) -> None:
    """Moves the files beside the weights of the job's model, in the place of earlier ones, and lists them in its row.

    In between they are not listed, so that no file is ever served under another's checksum.
    """
    for path in files:
        flush_file(path)
    facts = {path.name: describe_file(path) for path in files}
    withdraw_files(work, list(facts))
    with own_model(work) as model:
        for path in files:
            replace_file(path, work.settings.models_dir / model.id / path.name)
        model.files = {**model.files, **facts}


def withdraw_files(work: Work, names: Sequence[str]) -> None:
    """Takes the names off the list of the model's files; the files stay."""
    with own_model(work) as model:
        model.files = {name: known for name, known in model.files.items() if name not in names}


@contextmanager
def own_model(work: Work) -> Iterator[Model]:
    """The model's row, locked; raises `LeaseLost` unless this attempt still has the job."""
    with work.database.write() as session:
        renew(session, work.job.id, work.attempt, work.settings.lease_seconds)
        yield session.get_one(Model, work.job.spec["model"], with_for_update=True)
