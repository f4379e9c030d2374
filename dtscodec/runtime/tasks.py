"""The tasks that a running model knows, by name."""

from collections.abc import Mapping

from dtscodec.errors import TaskError
from dtscodec.runtime.resident_pack import ResidentPack


def check_new_task(task: str, tasks: Mapping[str, ResidentPack]) -> None:
    """Raise TaskError if there is a task of that name."""
    if task in tasks:
        raise TaskError(f"{task!r}: expected the name of a new task, got one that is there; remove it first")


def task_named(task: str, tasks: Mapping[str, ResidentPack]) -> ResidentPack:
    """The task of that name; TaskError if there is none."""
    try:
        return tasks[task]
    except KeyError:
        raise TaskError(f"{task!r}: expected one of the tasks {sorted(tasks)}, got none of that name") from None
