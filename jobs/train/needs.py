"""What a training needs, and is refused for before any work: readable data, memory, GPUs.

The run and `wpcrack train --dry-run` ask here alike; a sweep asks for its trial with the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from jobs.runtime.memory import require_memory
from jobs.runtime.ray_session import joins_cluster
from jobs.train.job import TrainJob, Workers, masked_pairs
from jobs.train.tracking import Trackers
from wpcrack.config import MethodConfig
from wpcrack.data.batches import Shard, validation_part
from wpcrack.data.images import Pair, read_rgb
from wpcrack.data.masks import check_masks
from wpcrack.data.pictures import Images
from wpcrack.data.read import ImageLevelSet, Item
from wpcrack.errors import ConfigError, DataError, first_few
from wpcrack.labels.pseudo_label import require_refiners
from wpcrack.model import only_predicts
from wpcrack.networks.paper.resnet38d import RESNET38D
from wpcrack.training.footprint import Footprint, footprint
from wpcrack.training.foresight import can_look_around, foreseen_bytes, warn_of_narrow_windows
from wpcrack.training.start import REPLACED, Start, find_start, start_networks
from wpcrack.training.trainer import require_common_statistics, require_sides

PROGRAM_BYTES = 1.1e9
"""Program and working memory beside what is counted. With it estimates were 15 % above the peak
of default networks with 16 windows of 128 pixels, and 2 % with 256 (Linux, fp32, one thread)."""

FEW_LABELS = 50
"""With 21 of Crack500 a model lost .004 IoU, unblended .023; on DeepCrack as few helped."""


@dataclass(frozen=True)
class Needs:
    """Of one worker.

    Attributes:
        size: (H, W) of the windows in pixels.
        scored: validation windows of each epoch.
        masked: validation images with masks.
        footprint: bytes of networks and windows; on the GPU, where there is one.
        cache_bytes: decoded images that a worker keeps.
        foreseen_bytes: the model that labels windows by what lies around them, and its maps.
        start: what the networks start from.
        fuses: whether the model will look at several scales.
        warnings: worth showing.
    """

    size: tuple[int, int]
    scored: int
    masked: int
    footprint: Footprint
    cache_bytes: int
    foreseen_bytes: int
    start: str
    fuses: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Memory and that of the GPU together, estimated."""
        beside = self.cache_bytes + self.foreseen_bytes
        return round(self.footprint.total + beside + PROGRAM_BYTES)


def find_needs(
    job: TrainJob, data: ImageLevelSet, *, trials: int = 1, local: bool = False
) -> Needs:
    """Read what a training will read, and refuse what it would refuse before its first step.

    Args:
        job: settings.
        data: windows.
        trials: trainings at the same time.
        local: the job never joins RAY_ADDRESS.

    Raises:
        WpcrackError: An image or mask is damaged, the networks do not fit the windows, there are
            too few GPUs, too little memory, or a tracker is not there.
    """
    require_gpus(job.scaling, local=local)
    Trackers(job.run_dir, job)  # tells nobody yet
    check_readable(data.items)
    pairs = masked_pairs(job.data)
    check_masks(pairs)
    window_px, workers = job.train.window_px, max(job.scaling.num_workers, 1)
    train = Images(data.train, window_px)
    scored = Images(validation_part(data.val, job.train.val_items, job.seed), window_px)
    require_sides(job.model, train.size, scored.size)
    require_common_statistics(job, Shard(0, workers))
    require_refiners(job.pseudo_label)
    start = find_start(job.model)
    downloads = job.model.pretrained == "timm" and job.model.encoder != RESNET38D
    if start.folder is not None or not (downloads or job.model.pretrained == "none"):
        start_networks(job.model)  # what is wrong with the weights is said now
    require_classifier(job, start)
    looks_around = can_look_around(job, from_model=start.folder is not None)
    one_encoder = start.one_encoder and job.train.one_encoder
    local_batch = -(-job.train.batch_size // max(job.scaling.least, 1))
    needs = Needs(
        size=train.size,
        scored=len(scored),
        masked=len(pairs),
        footprint=footprint(
            job,
            train.size,
            local_batch,
            one_encoder=one_encoder,
            on_cpu=not job.scaling.use_gpu,
        ),
        cache_bytes=train.kept_bytes + scored.kept_bytes,
        foreseen_bytes=foreseen_bytes(data.train, train.size) if looks_around else 0,
        start=start.note,
        fuses=len(start.scales) > 1,
        warnings=(
            *train.warnings,
            *warn_of_shared_sources(pairs, data),
            *(warn_of_few_labels(len(data.items)) if start.folder is not None else ()),
            *(warn_of_narrow_windows(data.train) if looks_around else ()),
            *warn_of_idle_keys(job, from_model=start.folder is not None),
        ),
    )
    _require_room(job, needs, trials * workers, local=local)
    return needs


def require_classifier(job: TrainJob, start: Start) -> None:
    """Refuse labels of a classifier that has learned nothing.

    Raises:
        ConfigError: None comes along, and no stage teaches one.
    """
    if job.train.steps.warmup or job.train.steps.adversarial:
        return
    if start.folder is None or only_predicts(start.folder):
        raise ConfigError(
            "train.steps.warmup and train.steps.adversarial are both 0, and model.init="
            f"{job.model.init} brings no classifier, so the map that labels the detector stage "
            "would be noise; set at least one of them to 1 or more"
        )


def require_gpus(scaling: Workers, *, local: bool = False) -> None:
    """Refuse a training on GPUs that this machine lacks; what a cluster has, Ray will say.

    Raises:
        ConfigError: There are too few.
    """
    if not scaling.use_gpu or (scaling.num_workers and joins_cluster(local=local)):
        return
    import torch

    found, wanted = torch.cuda.device_count(), max(scaling.least, 1)
    if found < wanted:
        raise ConfigError(
            f"scaling.use_gpu=true asks for {wanted} GPU here, and torch sees {found}; leave it "
            "out, or set fewer scaling.num_workers"
        )


def _require_room(job: TrainJob, needs: Needs, workers: int, *, local: bool) -> None:
    if job.scaling.num_workers and joins_cluster(local=local):
        return  # the nodes are other machines
    height, width = needs.size
    gpu_bytes = needs.footprint.total if job.scaling.use_gpu else 0
    require_memory(
        workers * (needs.memory_bytes - gpu_bytes),
        f"a training of {job.train.batch_size} windows of {width} x {height} px a batch",
        "set train.accumulate=4, a smaller train.batch_size or train.window_px, or end other "
        "programs",
    )
    if gpu_bytes:
        import torch

        has = torch.cuda.get_device_properties(0).total_memory
        if gpu_bytes > has:
            raise ConfigError(
                f"each worker needs about {gpu_bytes / 1e9:.1f} GB on its GPU, which has "
                f"{has / 1e9:.1f}; set train.accumulate=4 or a smaller train.batch_size"
            )


def check_readable(items: Sequence[Item]) -> None:
    """Decode every image once, so that a broken one is named before Ray starts.

    Raises:
        DataError: An image is truncated or unreadable, or of another size than its manifest says.
    """
    for item in items:
        height, width = read_rgb(item.path).shape[:2]
        if (height, width) != (item.height, item.width):
            raise DataError(
                f"{item.path} has {width} x {height} pixels, its manifest says {item.width} x "
                f"{item.height} (width x height); put the picture back, or empty these cells"
            )
        if item.surroundings is not None and item.has_crack:
            path = item.surroundings.path
            wide = read_rgb(path).shape[:2]
            if item.surroundings.find((wide[0], wide[1]), (height, width)) is None:
                raise DataError(
                    f"{path} has {wide[1]} x {wide[0]} pixels, and {item.path}, {width} x {height} "
                    "pixels, does not lie in it; correct the column surroundings, or empty its cell"
                )


def warn_of_few_labels(count: int) -> list[str]:
    """Warn of a training that may make a model worse than the one that it starts from."""
    if count >= FEW_LABELS:
        return []
    return [
        f"{count} labeled windows are few: the model may get worse than the one it starts from; "
        "label 100, or adapt it without labels (wpcrack adapt)"
    ]


def warn_of_idle_keys(job: TrainJob, *, from_model: bool) -> list[str]:
    """Warn of settings that differ from the defaults and change nothing."""
    defaults = MethodConfig()
    return [
        f"{key} changes nothing: {why}"
        for key, why in idle_keys(job, from_model=from_model).items()
        if attrgetter(key)(job) != attrgetter(key)(defaults)
    ]


def idle_keys(job: TrainJob, *, from_model: bool) -> dict[str, str]:
    """Return the keys that change nothing because of what a training starts from, and why."""
    label, train = job.pseudo_label, job.train
    if not from_model:
        own = (f"pseudo_label.{key}" for key in REPLACED.values())
        why = "it counts where a training starts from a model (model.init) alone"
        others = (
            "optim.trained_share",
            "train.blend",
            "train.one_encoder",
            "train.mined_share",
            "pseudo_label.look_around",
        )
        return dict.fromkeys((*own, *others), why)
    if train.joint_after is not None or not (
        label.self_training and train.detector_ema and train.steps.detector
    ):
        return {}
    return {
        f"pseudo_label.{key}": f"pseudo_label.{other} stands in its place, as the training starts "
        "from a model"
        for key, other in REPLACED.items()
    }


def warn_of_shared_sources(pairs: Sequence[Pair], data: ImageLevelSet) -> list[str]:
    """Warn of masked validation images that training windows were cut from."""
    shared = {pair.stem for pair in pairs} & {item.source for item in data.train}
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(pairs)} masked validation images are sources of training windows "
        f"({first_few(shared)}); their IoU will flatter the model, so leave them out"
    ]
