"""Measuring once: a task's result, with what every result says whatever its task is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from geoalign_core import __version__
from training.evaluation.catalogue import check_id, named_id, placed_id
from training.evaluation.fingerprints import digest_of, files_of

if TYPE_CHECKING:
    from training.evaluation.result import Result
    from training.evaluation.task import Job, Task


def measure(task: Task, job: Job) -> Result:
    """Run a task; add to its result the data set's id, the digests of its settings' files, the program's version.

    Where files lie is not told: a setting that is one becomes its name.

    Raises:
        UsageError: The data set that the job names is none of the task's.
        GeoAlignError: The data is missing, damaged or of another layout.
    """
    told = "" if job.dataset is None else check_id(job.dataset, task.name)
    files = files_of(task.files, job.settings)
    digests = {name: digest_of(path) for name, path in files.items()}
    result = task.run(job)
    known = told or named_id(result.dataset.name, task.name) or placed_id(job.data, task.name)
    names = {name: path.name for name, path in files.items() if name in result.settings}
    return replace(
        result, dataset=replace(result.dataset, id=known), settings={**result.settings, **names}, files=digests,
        version=__version__,
    )  # fmt: skip
