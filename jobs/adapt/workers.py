"""The updates of an adaption on Ray Train: workers share the windows of every batch.

The command labels the pictures and keeps the state of the first update in the folder of the round.
Workers go on from the state that lies there, after a loss of one, too, and the first of them
writes it. At the end the command finds the trained weights in it. So nothing goes through Ray but
paths, and the run folder must be one that all nodes share.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.adapt.job import AdaptOptions
from jobs.runtime.capacity import Request, say_while_waiting
from jobs.runtime.folder import is_locked
from jobs.runtime.follow import Followed
from jobs.runtime.ray_private import end_train_controllers
from jobs.runtime.ray_session import run_interruptibly, training_session
from jobs.runtime.shared import SharedFolder, share
from jobs.train.folder import WRITER, sole_writer
from jobs.train.run import explain_failure, ray_trainer
from wpcrack.networks import Networks
from wpcrack.training.adapt import Learn
from wpcrack.training.drawn import Lesson, Progress, Report, keep_start, kept_step, train_path
from wpcrack.training.drawn_windows import DrawnTrainConfig
from wpcrack.training.taught_windows import AdaptConfig, TaughtBatches, keep_taught, read_taught

TAUGHT = "taught"
"""Folder of the labeled pictures in that of a round."""

PROGRESS = "progress.jsonl"
"""A line for each update, in the folder of a round."""


def learn_on_ray(options: AdaptOptions, *, local: bool = False) -> Learn:
    """Return what trains networks as `train_path` does, by Ray Train's workers.

    Args:
        options: of the adaption.
        local: Use a Ray of our own even if RAY_ADDRESS names another.
    """

    def learn(
        rule: DrawnTrainConfig, nets: Networks, place: Path, lesson: Lesson, report: Report | None
    ) -> Networks:
        assert isinstance(lesson.batches, TaughtBatches)
        keep_start(rule, nets, place, lesson)
        if kept_step(rule, place) < rule.steps:
            keep_taught(place / TAUGHT, lesson.batches.images, lesson.batches.labels)
            config = options.model_dump(mode="json", include={*AdaptConfig.model_fields})
            values = {
                "config": config,
                "rule": rule.model_dump(mode="json"),
                "shares_encoder": nets.shares_encoder,
                "round": lesson.batches.number,
                "identity": lesson.identity,
                "place": str(place.absolute()),
            }
            _fit(options, values, report, local)
        return train_path(rule, nets, place, lesson)  # nothing is left to do: reads the state

    return learn


def _fit(options: AdaptOptions, values: dict[str, Any], report: Report | None, local: bool) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    place = Path(values["place"])
    scaling, each = options.scaling, options.scaling.each_with(options.threads)
    request = Request("worker", scaling.num_workers, each)
    shutil.rmtree(place / "ray", ignore_errors=True)  # what an earlier start noted there
    with share(place) as shared, training_session(request, local):
        loop = functools.partial(learn_loop, shared=shared)
        trainer = ray_trainer(loop, values, scaling, each, (str(place), "ray"))
        has_begun = functools.partial(is_locked, place / WRITER)
        try:
            with say_while_waiting(request, has_begun), Follower(place / PROGRESS, report):
                run_interruptibly(trainer.fit, end_train_controllers)
        except TrainingFailedError as error:
            raise explain_failure(error) from error


def learn_loop(values: dict[str, Any], *, shared: SharedFolder) -> None:
    """Make the updates that are left, on one rank."""
    shared.require()
    import ray.train
    import ray.train.torch

    place = Path(values["place"])
    rule = DrawnTrainConfig.model_validate(values["rule"])
    images, labels = read_taught(place / TAUGHT)
    config = AdaptConfig.model_validate(values["config"])
    lesson = Lesson(TaughtBatches(config, values["round"], images, labels), values["identity"])
    nets = Networks(rule.model)
    if values["shares_encoder"]:
        nets.share_encoder()
    learn = functools.partial(
        train_path, rule, nets, place, lesson, device=ray.train.torch.get_device()
    )
    if ray.train.get_context().get_world_rank():
        learn()
        return
    with sole_writer(place), (place / PROGRESS).open("a", encoding="utf-8") as file:

        def note(progress: Progress) -> None:
            file.write(json.dumps(asdict(progress)) + "\n")
            file.flush()

        learn(note)


class Follower(Followed):
    """Tells of each update that the first worker notes in a file, in a thread of its own."""

    def __init__(self, path: Path, report: Report | None) -> None:
        """Look at the file from its beginning; what an earlier start noted there is removed."""
        path.unlink(missing_ok=True)
        self.path, self.report, self.step = path, report, 0
        super().__init__(self._tell_new)

    def _tell_new(self) -> None:
        """Tell of updates beyond the last; workers that start again repeat some."""
        if self.report is None or not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                return  # it is being written
            progress = Progress(**json.loads(line))
            if progress.step > self.step:
                self.step = progress.step
                self.report(progress)
