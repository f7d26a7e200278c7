"""What a user can set for `wpcrack train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from jobs.runtime.cpus import usable_cpus
from jobs.runtime.folder import from_anywhere
from wpcrack.config import MethodConfig
from wpcrack.config_block import Block, Count, Positive
from wpcrack.data.images import Pair, pair


class DataConfig(Block):
    """The image-level data set."""

    root: Path
    """Folder with crack/ and road/, or with the manifest.csv of `wpcrack dataset`."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of frames held out, for folders without a manifest."""
    group: str | None = None
    """Regular expression for what in a name says which frame an image was cut from, for sets
    without a split; null: names that differ in a trailing counter, and images whose contents
    overlap."""
    gsd_mm: Positive | None = None
    """Pixel size on the ground in mm; null: photographs, inference never resamples."""
    license: str = "not stated"
    """License of the images, as you want it in the model card."""
    val_images: Path | None = None
    """Folder of photographs with masks that judge each epoch by IoU in place of the label-free
    score; null: no pixel label is used anywhere."""
    val_masks: Path | None = None
    """Their masks, of the same stems, with or without _mask."""
    mask_values: tuple[int, ...] = ()
    """What in those masks is crack, such as 1 or the index of a palette; []: what is white."""

    @model_validator(mode="after")
    def _images_come_with_masks(self) -> DataConfig:
        if (self.val_images is None) != (self.val_masks is None):
            given, lacking = ("val_images", "val_masks")[:: 1 if self.val_masks is None else -1]
            raise ValueError(f"{given} needs {lacking} too; set both or none")
        return self


class Workers(Block):
    """Ray Train workers of any training."""

    num_workers: Annotated[int, Field(ge=0)] = 1
    """Data-parallel workers; 0 trains inside the driver's process. 2..8 is a range: as many as the
    nodes have room for."""
    use_gpu: bool = False
    """One GPU for each worker."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often lost workers are started again from the last checkpoint."""

    @property
    def least(self) -> int:
        """Fewest workers that train; 0 inside the driver's process."""
        return self.num_workers

    def each_with(self, threads: int) -> dict[str, float]:
        """Return the resources of a worker with so many CPU threads, as Ray names them."""
        return {"CPU": float(threads)} | ({"GPU": 1.0} if self.use_gpu else {})


class ScalingConfig(Workers):
    """Ray Train workers."""

    min_workers: Count | None = None
    """Least end of a range, which num_workers=2..8 sets; null: num_workers."""
    cpus_per_worker: Count | None = None
    """CPU threads of each worker; null: this machine's, shared among the workers."""
    loaders: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare the batches of each worker, for GPUs that would wait; 0: a thread of
    the worker. They need room in /dev/shm, and change no batch."""
    checkpoint_minutes: Positive | None = 10.0
    """A checkpoint is also kept within an epoch, this long after the last one; null: only at the
    end of epochs. Where Ray says that a machine will be taken back, one is kept at once."""
    num_to_keep: Count = 2
    """Checkpoints kept, those of the best epochs; beside them always the newest, to continue from.
    The best model is kept apart."""
    storage_path: str | None = None
    """Where Ray's workers keep checkpoints: a folder that all nodes share, or a URI such as
    s3://BUCKET/runs; null: in run_dir. All other files lie in run_dir."""

    @model_validator(mode="before")
    @classmethod
    def _take_range(cls, values: Any) -> Any:
        """Read num_workers=2..8 as min_workers=2 num_workers=8."""
        text = values.get("num_workers") if isinstance(values, dict) else None
        found = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", text) if isinstance(text, str) else None
        if found is None:
            return values
        return {**values, "min_workers": int(found[1]), "num_workers": int(found[2])}

    @model_validator(mode="after")
    def _range_is_one(self) -> ScalingConfig:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"num_workers is {self.num_workers}, less than min_workers={self.min_workers}; "
                "write the smaller number first, as in num_workers=2..8"
            )
        return self

    @property
    def least(self) -> int:
        """Fewest workers that train; 0 inside the driver's process."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change during a training."""
        return self.least < self.num_workers

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        if self.cpus_per_worker is not None:
            return self.cpus_per_worker
        return max(1, usable_cpus() // max(self.num_workers, 1))

    @property
    def each(self) -> dict[str, float]:
        """Resources of each worker, as Ray names them."""
        return self.each_with(self.threads)


class TrackingConfig(Block):
    """Who else is told of a training."""

    mlflow: str | None = None
    """MLflow: a folder, a sqlite:/// or an http:// URI; needs the package mlflow."""
    experiment: str = "wpcrack"
    """Name of the experiment there."""
    hook: str | None = None
    """Function of your own, as package.module:function; called as function(event, values) with the
    event start, epoch or end."""


class TrainJob(MethodConfig):
    """From an image-level data set to a model."""

    data: DataConfig
    """Images and labels."""
    run_dir: Path
    """Run folder: model/, checkpoints/, metrics.jsonl, tensorboard/, config.yaml, report.json."""
    scaling: ScalingConfig = ScalingConfig()
    """Workers."""
    tracking: TrackingConfig = TrackingConfig()
    """Trackers."""
    resume: Literal["auto", "never", "force"] = "auto"
    """auto: continue an unfinished run, refuse another config; never: start in an emptied folder;
    force: continue although the config differs."""

    def absolute(self) -> TrainJob:
        """Return the same job for a process with another working folder."""
        data, model = self.data, self.model
        kept = {name: getattr(data, name) for name in ("root", "val_images", "val_masks")}
        places = {name: path.absolute() for name, path in kept.items() if path is not None}
        weights = model.weights_file.absolute() if model.weights_file is not None else None
        init = model.init.absolute() if isinstance(model.init, Path) else model.init
        texts = self.scaling.storage_path, self.tracking.mlflow
        storage, mlflow = (None if text is None else from_anywhere(text) for text in texts)
        return self.model_copy(
            update={
                "run_dir": self.run_dir.absolute(),
                "data": data.model_copy(update=places),
                "model": model.model_copy(update={"weights_file": weights, "init": init}),
                "scaling": self.scaling.model_copy(update={"storage_path": storage}),
                "tracking": self.tracking.model_copy(update={"mlflow": mlflow}),
            }
        )

    @field_validator("run_dir", mode="before")
    @classmethod
    def _is_no_uri(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            raise ValueError(
                f"{value} is a URI, but a run folder is a local or mounted folder; checkpoints "
                "alone may lie at a URI, see scaling.storage_path"
            )
        return value

    @model_validator(mode="after")
    def _storage_is_rays(self) -> TrainJob:
        if self.scaling.storage_path is not None and self.scaling.num_workers == 0:
            raise ValueError(
                "scaling.storage_path is for Ray's workers; set scaling.num_workers=1 or more, or "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _start_stays(self) -> TrainJob:
        for name, place in (("init", self.model.init), ("weights_file", self.model.weights_file)):
            if self.resume != "never" or not isinstance(place, Path):
                continue
            if place.resolve().is_relative_to(self.run_dir.resolve()):
                raise ValueError(
                    f"model.{name}={place} lies in run_dir, which resume=never empties first; "
                    "choose another run_dir"
                )
        return self

    @model_validator(mode="after")
    def _gives_a_model(self) -> TrainJob:
        if not (self.train.steps.adversarial or self.train.steps.detector):
            raise ValueError(
                "train.steps.adversarial and train.steps.detector are both 0, and the warmup alone "
                "gives no model; set at least one of them to 1 or more"
            )
        return self

    @model_validator(mode="after")
    def _batch_is_shared(self) -> TrainJob:
        scaling, pieces = self.scaling, self.train.accumulate
        workers = max(scaling.num_workers, 1)
        if scaling.is_elastic:
            if self.train.batch_size < workers:
                raise ValueError(
                    f"train.batch_size is {self.train.batch_size}, of which some of {workers} "
                    "workers would get nothing; set a smaller range of scaling.num_workers"
                )
        elif self.train.batch_size % (workers * pieces):
            each = f" in {pieces} pieces each (train.accumulate)" if pieces > 1 else ""
            raise ValueError(
                f"train.batch_size is {self.train.batch_size}, which {workers} workers cannot "
                f"share equally{each}; set a multiple of {workers * pieces}"
            )
        return self


def masked_pairs(config: DataConfig) -> list[Pair]:
    """Return the masked validation set, if the user gives one.

    Raises:
        DataError: Images and masks do not pair up.
    """
    if config.val_images is None or config.val_masks is None:
        return []
    return pair(config.val_images, config.val_masks, mask_values=config.mask_values)
