"""The command `reid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.papers.catalogue import describe

app = typer.Typer(help="Person re-identification as a service.", no_args_is_help=True, add_completion=False)


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default REID_HOST or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default REID_PORT or 8000.")] = None,
) -> None:
    """Start everything on this machine: API, workers and, unless REID_BROKER_URL is set, a broker."""
    from service.cli.up import run

    raise typer.Exit(run(host, port))


@app.command()
def api(one_of_several: Annotated[bool, typer.Option("--one-of-several", hidden=True)] = False) -> None:
    """Start the API alone, as one container of several does; in REID_API_PROCESSES processes."""
    from service.cli.api import run_api

    run_api(as_one_of_several=one_of_several)


@app.command()
def migrate() -> None:
    """Bring the database to this version and make the first admin key."""
    from service.cli.up import run_migrate

    run_migrate()


@app.command("sample-data")
def sample_data(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    identities: Annotated[int, typer.Option(min=2, help="Made-up people, half of them for training.")] = 60,
    cameras: Annotated[int, typer.Option(min=1, help="Views that each of them is seen from.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images; another seed, another world.")] = 0,
) -> None:
    """Draw a data set of made-up pedestrians in Market-1501 layout."""
    from service.cli.demo import draw_sample_data

    draw_sample_data(out, identities=identities, cameras=cameras, seed=seed)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A data set in any known format, or an archive of one.")] = None,
    weights: Annotated[Path | None, typer.Option(help="MobileNetV2 weights (safetensors) to start from.")] = None,
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("demo-out"),
) -> None:
    """The whole way once: register, train, evaluate before and after, build a gallery, search.

    In a service of its own, or, where the environment names a database or a broker, in the one that has them; what it
    makes there is deleted at the end. Without --data it draws people.
    """
    from service.cli.demo import run

    raise typer.Exit(run(data, weights, out))


@app.command(
    help="A table or figure of a paper, done again: trains and measures what it shows, and writes one page.\n\n"
    "In the service that runs here, or in one of this home that is started for it. Stopped and started again, it goes "
    "on where it was.\n\n" + describe()
)
def reproduce(
    experiment: Annotated[str, typer.Argument(help="One of those listed above.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH, for each data set that it needs; with --small a PATH or nothing does."),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Small network and images, few epochs, a part of the rows: minutes.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights to start from, a file or a name in REID_WEIGHTS_DIR; else ImageNet's, small: none."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; default 0. Several: their mean.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page; default reproduction/EXPERIMENT.")] = None,
) -> None:
    from service.cli.reproduction.command import run

    raise typer.Exit(run(experiment, data or [], small=small, weights=weights, seeds=seed or [0], out=out))
