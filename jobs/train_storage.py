"""Where Ray keeps the checkpoints of a run: in its run folder, or where all nodes reach them."""

from __future__ import annotations

import uuid
from pathlib import Path

from jobs.train_folder import write_text
from jobs.train_job import TrainJob
from wpcrack.errors import ConfigError, first_line

RUN_ID = ".run_id"


def storage_of(job: TrainJob) -> tuple[str, str]:
    """Ray's storage path and the name of the run in it.

    Elsewhere than in the run folder the name carries an id of the run, so that runs of one name do
    not continue from each other; resume=never makes another one.

    Args:
        job: whose run folder is ours.

    Raises:
        ConfigError: Nothing can be kept at scaling.storage_path.
    """
    root, place = job.run_dir.absolute(), job.scaling.storage_path
    if place is None:
        return str(root.parent), root.name
    path = place if "://" in place else str(Path(place).absolute())
    require_storage(path)
    known = root / RUN_ID
    if not known.exists():
        write_text(known, uuid.uuid4().hex[:8])
    return path, f"{root.name}-{known.read_text(encoding='utf-8')}"


def require_storage(path: str) -> None:
    """Makes the folder, as Ray will, to learn now what does not work.

    Raises:
        ConfigError: Of what pyarrow and the storage say.
    """
    import pyarrow.fs

    try:
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(path)
        filesystem.create_dir(inner, recursive=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"scaling.storage_path {path} cannot be used ({first_line(error)}); give a folder "
            "that all nodes share, or a URI that pyarrow knows, such as s3://BUCKET/runs or gs://BUCKET/runs"
        ) from error
