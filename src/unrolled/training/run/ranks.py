"""The processes of a run: what started this one, and how rank 0 passes its configuration to the others.

Only rank 0 reads the command line and composes. It publishes the result in a key-value store (torch's TCPStore, which
the process group uses afterwards, too), and each other process reads it there. torch is imported where it is needed,
since a mistake on the command line should not wait for it.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from unrolled.training.configuration.options import ConfigurationError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

STARTED_BY = "UNROLLED_STARTED_BY"  # for the processes that a run starts: its process id, its rank and the world size
START_TIMEOUT = 600  # seconds that a process waits for the configuration of rank 0
READ_TIMEOUT = 60  # seconds that rank 0 stays to tell the others that there is no run
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")  # of a run over several nodes without a launcher
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", *BY_HAND)
_taken: dict[str, str] = {}  # what `take_stray_variables` removed
_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")  # launchers that Lightning detects
_JOB, _FAILED = "job", "failed"  # keys of the store
PARENT = os.getppid()

_log = logging.getLogger(__name__)


class RankError(RuntimeError):
    """Another process of the run has ended or does not answer."""


class Place(NamedTuple):
    """The place of this process among those that were started together."""

    rank: int
    world_size: int
    started_by: str  # "torchrun", "srun", or a process of the run itself: "rank 0"


def place() -> Place | None:
    """Returns the place of this process; None for one that was started alone and may start others."""
    variables = os.environ
    parent, first, size = (variables.get(STARTED_BY) or "::").split(":")
    if parent == str(PARENT):
        return Place(int(first) + int(variables["LOCAL_RANK"]), int(size), f"rank {first}")
    if "TORCHELASTIC_RUN_ID" in variables:
        return Place(int(variables["RANK"]), int(variables["WORLD_SIZE"]), "torchrun")
    if num_srun_tasks() > 1:
        return Place(int(variables["SLURM_PROCID"]), num_srun_tasks(), "srun")
    return None


def num_srun_tasks() -> int:
    """Returns the number of processes that `srun` started for this step, including this one; 0 without `srun`.

    The shell of an allocation (`salloc`) and a batch script (`sbatch`) do not count as tasks of their job.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return int(tasks) if tasks.isdigit() else 0


def is_first() -> bool:
    """Whether this process is rank 0, which composes the run for all."""
    here = place()
    return here.rank == 0 if here is not None else os.environ.get("NODE_RANK", "0") == "0"


def name_of_process() -> str:
    """Returns "rank 1"; "node 1" for a process that starts the ranks of its node; empty for rank 0."""
    here = place()
    if is_first():
        return ""
    return f"node {os.environ['NODE_RANK']}" if here is None else f"rank {here.rank}"


def is_orphan() -> bool:
    """Whether a process of a run has started this one, and has ended since."""
    parent = os.environ.get(STARTED_BY, "").partition(":")[0]
    if not parent or place() is not None or os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    try:
        os.kill(int(parent), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def take_stray_variables() -> None:
    """Removes the variables of a launcher that did not start this process.

    They are left in a shell by another run, for example. Lightning and torch would take this process for one of
    several, and wait for the others. Call it before Lightning is imported.
    """
    if place() is None and not any(os.environ.get(name, "1") not in ("0", "1") for name in _MPI):
        _taken.update({name: os.environ.pop(name) for name in VARIABLES if name in os.environ})


def joins_another_node(arguments: Sequence[str]) -> bool:
    """Whether this command was started on a node after the first one, by hand. Restores the variables that say so."""
    several = any(argument.partition("=")[0].lstrip("+") == "trainer.num_nodes" for argument in arguments)
    joins = several and _taken.get("NODE_RANK", "0") != "0" and all(name in _taken for name in BY_HAND)
    if joins:
        check_by_hand(2)
    return joins


def check_by_hand(num_nodes: int) -> None:
    """Checks and restores the variables of a run over several nodes that is started once on each.

    Raises:
        ConfigurationError: names the missing variables.
    """
    found = {name: value for name, value in {**_taken, **os.environ}.items() if name in BY_HAND}
    if missing := [name for name in BY_HAND if name not in found]:
        raise ConfigurationError(
            f"trainer.num_nodes={num_nodes}: start the command once on each node, with NODE_RANK, MASTER_ADDR and "
            f"MASTER_PORT in its environment ({' and '.join(missing)} missing), or start it with torchrun or srun"
        )
    os.environ.update(found)


def publish(text: str) -> None:
    """Gives the other processes the configuration that they run; empty: there is no run. Rank 0 calls it."""
    here = place()
    if here is not None and here.started_by == "torchrun":
        agents = _connect(server=False)
        from lightning.fabric.plugins.environments.lightning import find_free_network_port

        _use_port(find_free_network_port())
        threading.Thread(target=_tell_port, args=(agents, here.world_size), daemon=True).start()
    store = _store()
    store.delete_key(_FAILED)  # of an earlier run of this process
    store.set(_JOB, text)


def refuse() -> None:
    """Tells the other processes that there is no run, after an error that rank 0 reports."""
    here = place()
    if here is None or here.world_size == 1 or _store.cache_info().currsize:
        return  # there is one
    publish("")
    store = _store()
    store.set_timeout(timedelta(seconds=READ_TIMEOUT))
    try:
        store.wait(_read_by(here.world_size))
    except RuntimeError:
        _log.debug("a process did not read that there is no run")


@cache
def receive() -> str:
    """Returns the configuration of rank 0; empty if there is no run.

    Raises:
        RankError: rank 0 has ended, or does not answer.
    """
    here = place()
    try:
        if here is not None and here.started_by == "torchrun":
            _use_port(_ask_port(here.rank))
        store = _store()
        store.wait([_JOB])
        text = store.get(_JOB).decode()
        store.set(f"read/{name_of_process()}", "")
    except (RuntimeError, ValueError) as error:  # torch raises ValueError for a host without an address
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank 0 has sent no configuration; it has ended, or {where} cannot be reached from here: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return text


def _read_by(world_size: int) -> list[str]:
    return [f"read/rank {rank}" for rank in range(1, world_size)]


def _use_port(port: int) -> None:
    """Leaves the store of torchrun for one that rank 0 has at another port.

    When torchrun starts its processes again, it gives them the same store (2.13). What their predecessors wrote there,
    such as the addresses of gloo, is still in it, and a process that is faster than another would read it.
    """
    os.environ["MASTER_PORT"], os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(port), "False"


def _ask_port(rank: int) -> int:
    """Returns the port of rank 0, from torchrun's store. The answer to a number of one's own is not one of before."""
    agents, number = _connect(server=False), uuid.uuid4().hex
    agents.set(f"asks/{rank}", number)
    agents.wait([f"port/{number}"])
    return int(agents.get(f"port/{number}"))


def _tell_port(agents: "Store", world_size: int) -> None:
    """Answers each process until all have read the configuration."""
    answered: set[bytes] = set()
    store, port = _store(), os.environ["MASTER_PORT"]
    with suppress(RuntimeError):  # torchrun has ended
        while not store.check(_read_by(world_size)):
            for rank in range(1, world_size):
                number = agents.get(f"asks/{rank}") if agents.check([f"asks/{rank}"]) else b""
                if number and number not in answered:
                    agents.set(f"port/{number.decode()}", port)
                    answered.add(number)
            time.sleep(0.2)


def report_failure(rank: int, error: str) -> None:
    """Tells the other processes of an error that ends this one; of several errors, the first one counts."""
    line = next(iter(error.strip().splitlines()), "")
    _store().compare_set(_FAILED, "", f"rank {rank} on {socket.gethostname()}: {line[:300]}")


def failure() -> str:
    """Returns the error that has ended a process of the run; empty if none has."""
    try:
        return _store().get(_FAILED).decode() if _store().check([_FAILED]) else ""
    except RuntimeError:
        return "rank 0 has ended"  # it has the store


def lost(rank: int, world_size: int, *, seconds: float) -> str:
    """Returns which process has ended, after the connection to one has broken.

    All processes that notice that note it in the store. Those that don't, within a few seconds, have ended, or wait for
    something else.
    """
    try:
        store = _connect(server=False)
        store.set(f"lost/{rank}", "")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if store.check([_FAILED]):
                return store.get(_FAILED).decode()
            time.sleep(0.2)
        silent = [str(other) for other in range(world_size) if not store.check([f"lost/{other}"])]
    except RuntimeError:
        return failure()
    names = f"rank{'s' if len(silent) > 1 else ''} {', '.join(silent[:8])}"
    return f"{names} ended without a message, or did not answer" if silent else "the processes lost their connection"


def leave(rank: int, world_size: int) -> None:
    """Waits until all processes have finished, where the others would lose their store with this one."""
    store = _store()
    store.set(f"done/{rank}", "")
    if is_first():
        store.wait([f"done/{other}" for other in range(world_size)])


def set_address_of_srun() -> None:
    """Sets address and port of rank 0 of a step, unless they are given. Each step of a job gets a port of its own.

    Lightning's port depends on the job alone, so that two steps at the same time would meet.
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
    job, step = (int(os.environ.get(name) or 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    os.environ.setdefault("MASTER_PORT", str(15000 + (job * 31 + step) % 15000))


@cache
def _store() -> "Store":
    here = place()
    if here is not None and here.started_by == "srun":
        set_address_of_srun()
    return _connect(server=is_first())


def _connect(*, server: bool) -> "Store":
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    variables = os.environ
    store = TCPStore(
        variables["MASTER_ADDR"],
        int(variables["MASTER_PORT"]),
        is_master=server,
        timeout=timedelta(seconds=START_TIMEOUT),
        wait_for_workers=False,
        multi_tenant=True,  # the process group opens it, too
    )
    names = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    return PrefixStore("/".join(["unrolled", *(variables.get(name, "") for name in names)]), store)
