"""Who can remember: tasks that need a memory, and the longest lag at which each cell learns them."""

from cellwise.understand.memory.learn import Learned, Learning, MemoryNetwork, learn
from cellwise.understand.memory.search import (
    Contender,
    MemorySettings,
    MemoryStudy,
    Trial,
    Watch,
    study_memory,
)
from cellwise.understand.memory.tasks import TASKS, MemoryTaskError, Task, task_of

__all__ = [
    "TASKS",
    "Contender",
    "Learned",
    "Learning",
    "MemoryNetwork",
    "MemorySettings",
    "MemoryStudy",
    "MemoryTaskError",
    "Task",
    "Trial",
    "Watch",
    "learn",
    "study_memory",
    "task_of",
]
