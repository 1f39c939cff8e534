"""Settings: everything an operator can choose, read from `REID_*` environment variables (docs/settings.md)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 1024**3

SAMPLE_PASSWORDS = frozenset(
    {"admin", "change-me", "change_me", "changeme", "changethis", "example", "password", "postgres", "redis", "reid"}
    | {"root", "sample", "secret", "test", "123456", "12345678"}
)
"""Passwords that stand in tutorials; one of them in a URL means that nobody has chosen one."""


_SECRETS = ("database_url", "broker_url")
"""May also stand in a file, which `REID_<name>_FILE` names: containers are given their secrets so."""


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()  # keeps symlinks: an operator may point `home` at another disk


def _split_paths(value: Any) -> Any:
    return [part for part in value.split(":") if part] if isinstance(value, str) else value


def _split_words(value: Any) -> Any:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _refuse_sample_password(url: str | None) -> str | None:
    if url and (urlsplit(url).password or "").lower() in SAMPLE_PASSWORDS:
        raise ValueError("the password in this URL is a sample; choose your own, e.g. with `openssl rand -hex 24`")
    return url


def _read_secret(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


Folder = Annotated[Path, AfterValidator(_absolute)]
Folders = Annotated[tuple[Folder, ...], NoDecode, BeforeValidator(_split_paths)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split_words)]
SecretUrl = Annotated[str, AfterValidator(_refuse_sample_password)]


class Settings(BaseSettings):
    """One value per choice; derived folders are properties. A wrong value raises pydantic's ValidationError."""

    model_config = SettingsConfigDict(
        env_prefix="REID_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True, validate_default=True
    )

    home: Folder = Field(
        default=Path("reid-data"), description="Folder of database, models, galleries, uploads and admin key."
    )
    data_roots: Folders = Field(
        default_factory=lambda data: (data["home"] / "datasets",),
        description="Folders, separated by `:`, from which a data set may be registered by path.",
        min_length=1,
    )
    weights_dir: Folder = Field(
        default_factory=lambda data: data["home"] / "weights",
        description='Folder in which `init_from: {"weights": "<file name>"}` looks.',
    )
    database_url_file: Folder | None = Field(
        default=None, description="File that holds the database URL, instead of `REID_DATABASE_URL`: for secrets."
    )
    database_url: SecretUrl = Field(
        default_factory=lambda data: f"sqlite:///{data['home']}/reid.db",
        description="Where rows live: `sqlite:///<file>` or `postgresql://user:password@host/name`.",
        repr=False,
    )
    migrate: Literal["auto", "on", "off"] = Field(
        default="auto", description="Bring the database to this version at start: `auto` does so on SQLite only."
    )
    broker_url_file: Folder | None = Field(
        default=None, description="File that holds the broker's URL, instead of `REID_BROKER_URL`: for secrets."
    )
    broker_url: SecretUrl | None = Field(
        default=None, description="Queue of jobs, e.g. `redis://host:6379/0`; unset: the embedded broker.", repr=False
    )

    auth: Literal["on", "off"] = Field(
        default="on", description="API keys are demanded; `off` is accepted only while `host` is a loopback address."
    )
    rate_wrong_keys: int = Field(
        default=10, ge=0, description="Wrong keys a minute from one address, and like one key; then 429. 0: no limit."
    )
    rate_requests: int = Field(default=0, ge=0, description="Requests a minute by one key; then 429. 0: no limit.")
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the API listens on.")
    api_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that share the API's requests; each loads models and indexes of its own, and its limits "
        "hold for itself.",
    )
    root_path: str | None = Field(
        default=None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="What a proxy puts before our addresses, e.g. `/reid`; links and `/docs` begin with it.",
    )
    cors_origins: Words = Field(
        default=(), description="Origins, separated by `,`, whose pages may call the API, e.g. `https://lab.example`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe message logged."
    )

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where networks run: `auto`, `cpu`, `cuda`, `cuda:1`.",
    )
    engine: Literal["auto", "torch", "onnxruntime", "openvino"] = Field(
        default="auto", description="What runs networks of searches and index jobs; see engines.md."
    )
    threads: int = Field(default=0, ge=0, description="Threads for tensor work in each process; 0: one per CPU core.")

    tensorboard_dir: Folder | None = Field(
        default=None, description="Folder for TensorBoard event files with the curves of jobs; extra `curves`."
    )
    mlflow_url: str | None = Field(
        default=None,
        description="MLflow server that gets the curves of jobs, e.g. `http://host:5000`; extra `curves`.",
        repr=False,
    )
    mlflow_experiment: str = Field(default="reid-search", description="Experiment of MLflow for jobs' runs.")

    short_jobs: int = Field(
        default=2, ge=1, description="Jobs other than trainings that a worker of `reid up` runs side by side."
    )
    heartbeat_file: Folder | None = Field(
        default=None, description="File that a worker touches every two seconds while it lives; for health checks."
    )
    lease_seconds: float = Field(default=20, gt=0, description="A running job silent for longer counts as interrupted.")
    cancel_grace_seconds: float = Field(
        default=5, ge=0, description="Time a cancelled job has to end before it is killed."
    )
    checkpoint_seconds: float = Field(
        default=20, ge=0, description="Pause between checkpoints of a training: what a crash can cost at most."
    )
    max_attempts: int = Field(
        default=5, ge=1, description="How often a job is started again after its process was lost."
    )
    webhook_networks: Networks = Field(
        default=(),
        description="Networks, separated by `,`, that webhooks may go to though they are private, e.g. `10.1.0.0/16`.",
    )
    webhook_attempts: int = Field(
        default=15, ge=1, le=20, description="How often the end of a job is sent to its webhook before it is given up."
    )
    webhook_retry_seconds: float = Field(
        default=5, gt=0, description="Pause after a first failed delivery to a webhook; each one more doubles it."
    )
    webhook_seconds: float = Field(
        default=10, gt=0, description="Longest time that a webhook's receiver may take to answer, connecting included."
    )

    max_image_pixels: int = Field(default=50_000_000, gt=0, description="Largest image decoded, width x height.")
    max_picture_bytes: int = Field(default=64 * 1024**2, gt=0, description="Largest file of one uploaded image.")
    decode_memory_bytes: int = Field(
        default=768 * 1024**2,
        gt=0,
        description="Memory that images may take together while they are decoded; others wait for it (503).",
    )
    body_memory_bytes: int = Field(
        default=64 * 1024**2,
        gt=0,
        description="Memory that request bodies may take together while they arrive; others are refused (503).",
    )
    header_seconds: float = Field(
        default=10, gt=0, description="Longest time for a request's headers; then its connection is closed."
    )
    body_seconds: float = Field(
        default=20, gt=0, description="Longest time that a body may keep the service waiting; then 408."
    )
    body_bytes_per_second: int = Field(
        default=1024, gt=0, description="A body that comes at this pace may take longer than that."
    )
    gallery_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory for loaded galleries in an API process; the longest unused go first. 0: half of all.",
    )
    searches_at_once: int = Field(
        default=8, gt=0, description="Searches answered at a time; those of the same moment share a batch."
    )
    uploads_at_once: int = Field(default=2, gt=0, description="Requests that add images, answered at a time.")
    max_waiting: int = Field(
        default=24, ge=0, description="Searches that wait for their turn, and uploads; more are refused (503)."
    )
    max_wait_seconds: float = Field(
        default=2, ge=0, description="Longest wait for a turn, and for memory to decode an image in; then 503."
    )
    max_upload_bytes: int = Field(default=8 * GIB, gt=0, description="Largest request that carries files.")
    import_seconds: float = Field(
        default=120, gt=0, description="Longest time that the check of an imported ONNX network may take; then 422."
    )
    max_json_bytes: int = Field(default=4 * 1024**2, gt=0, description="Largest request body without files.")
    max_images_per_request: int = Field(
        default=1000, gt=0, description="Most images added to a gallery in one request."
    )
    max_rows_per_request: int = Field(
        default=100_000, gt=0, description="Most embeddings made elsewhere that are added to a gallery in one request."
    )
    max_form_fields: int = Field(default=1000, gt=0, description="Most fields without a file in one form.")
    max_query_images: int = Field(default=16, gt=0, description="Most images of one person in one search.")
    max_batch_queries: int = Field(default=100, gt=0, description="Most queries of one `POST /search/batch`.")
    max_top_k: int = Field(default=1000, gt=0, le=10_000, description="Most results, and candidates, of one search.")
    max_offset: int = Field(default=10_000, ge=0, description="Most results that a search passes over by `offset`.")
    max_thumbnail_width: int = Field(default=1024, ge=16, description="Widest thumbnail, `?width=` of an image.")
    max_archive_files: int = Field(default=500_000, gt=0, description="Most files in an uploaded archive.")
    max_archive_bytes: int = Field(default=64 * GIB, gt=0, description="Largest uploaded archive once unpacked.")
    min_free_bytes: int = Field(
        default=GIB, ge=0, description="Free disk space below which uploads and jobs are refused (507)."
    )
    idempotency_seconds: float = Field(
        default=86_400, gt=0, description="How long an answer is kept for its Idempotency-Key."
    )
    explanation_minutes: float = Field(
        default=60,
        ge=0,
        description="How long what a search with `explain` was sent is kept, to draw it; 0: not at all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in _SECRETS:
            if path := values.get(f"{name}_file"):
                if values.get(name):
                    raise ValueError(
                        f"REID_{name.upper()} and REID_{name.upper()}_FILE are both set; unset one of them"
                    )
                values = {**values, name: _read_secret(path)}
        return values

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Settings:
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"REID_AUTH=off is accepted only while bound to loopback, but the host is {self.host!r}; "
                "leave REID_AUTH on, or bind to 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _room_for_one_body(self) -> Settings:
        needed = self.max_json_bytes + 1024**2
        if self.body_memory_bytes < needed:
            raise ValueError(
                f"REID_BODY_MEMORY_BYTES is {self.body_memory_bytes:,}, but one body of REID_MAX_JSON_BYTES = "
                f"{self.max_json_bytes:,} takes {needed:,}; raise the one or lower the other"
            )
        return self

    @property
    def bases(self) -> tuple[Path, ...]:
        """Folders to which paths in rows are relative: they may move, and the settings then name their new places."""
        return (self.home, *self.data_roots)

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def galleries_dir(self) -> Path:
        return self.home / "galleries"

    @property
    def uploads_dir(self) -> Path:
        """The folder of uploaded data sets, one folder each, and of models while they are imported."""
        return self.home / "uploads"

    @property
    def searches_dir(self) -> Path:
        """The folder of searches with `explain`, kept for a while, one folder each."""
        return self.home / "searches"

    @property
    def journals_dir(self) -> Path:
        """The folder of searches on their way into the audit log, one folder for each API process."""
        return self.home / "journals"

    @property
    def jobs_dir(self) -> Path:
        """Logs and checkpoints, one folder per job."""
        return self.home / "jobs"

    @property
    def admin_key_path(self) -> Path:
        return self.home / "admin.key"

    @property
    def migrate_at_start(self) -> bool:
        """True when opening the database may change its schema."""
        return self.migrate == "on" or (self.migrate == "auto" and self.database_url.startswith("sqlite"))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read from the environment once."""
    return Settings()


def is_loopback(host: str) -> bool:
    """True for `localhost` and addresses that only this machine can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
