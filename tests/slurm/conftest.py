"""A SLURM of two nodes on the loopback interface, with Debian's own programs: slurmctld, slurmd and munged."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "salloc", "scontrol", "squeue", "scancel")
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NODES = ("127.0.0.2", "127.0.0.3")  # names that every machine resolves, to its loopback interface
GPUS = 4
CPUS = 8  # of each node, whatever the machine has: the tests' tasks are small
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=200000
SchedulerType=sched/builtin
ReturnToService=2
KillWait=30
MinJobAge=3600
SlurmctldTimeout=300
SlurmdTimeout=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


class Cluster:
    """A running SLURM. Its processes are ended by `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), SEARCHED]),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self) -> None:
        """Starts the daemons and waits for the nodes."""
        (self.folder / "munge").mkdir(mode=0o755)
        (self.folder / "state").mkdir()
        self._configure()
        key = self.folder / "munge" / "key"
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], env=self.environment, check=True)
        files = [f"--{name}={self.folder}/munge/{name.removesuffix('-file')}" for name in ("socket", "pid-file")]
        files += [f"--{name}={self.folder}/munge/{name.removesuffix('-file')}" for name in ("log-file", "seed-file")]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *files)
        self._daemon("slurmctld", "-D", "-c")
        for name in NODES:
            (self.folder / f"spool-{name}").mkdir()
            self._daemon("slurmd", "-D", "-N", name)
        deadline = time.monotonic() + 120
        while self.output("sinfo", "--noheader", "--Node", "--format=%T", "--partition=low", check=False).split() != (
            ["idle"] * len(NODES)
        ):
            failed = [process.args for process in self.processes if process.poll() is not None]
            if failed or time.monotonic() > deadline:
                logs = "".join(f"{path}:\n{path.read_text()[-1500:]}\n" for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"SLURM does not start: {failed or 'its nodes are not idle'}\n{logs}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Cancels all jobs and ends the daemons."""
        self.output("scancel", "--user=root", "--signal=KILL", check=False)
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def output(self, *command: str, check: bool = True) -> str:
        """Returns what a command prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def of_run(self, folder: Path) -> dict[str, str]:
        """Returns the environment of a run that imports from a folder, too, and keeps its cache there."""
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks"), str(folder)])
        return {**self.environment, "PYTHONPATH": path, "UNROLLED_CACHE": str(folder / "cache")}

    def submit(self, *arguments: str | Path, folder: Path) -> str:
        """Submits a batch script with options of sbatch. Returns the number of the job."""
        done = subprocess.run(
            ["sbatch", "--parsable", *map(str, arguments)],
            cwd=folder,
            env=self.of_run(folder),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Returns what SLURM knows of a job, or of one task of an array: `7_1`."""
        words = self.output("scontrol", "show", "job", "--oneliner", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, until: Callable[[dict[str, str]], bool] | None = None, seconds: float = 420) -> str:
        """Waits for the end of a job, or for something else. Returns its state."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(number)
            if until(job) if until else job["JobState"] in ENDED:
                return job["JobState"]
            if time.monotonic() > deadline or (until and job["JobState"] in ENDED):
                raise AssertionError(f"job {number} is {job['JobState']} ({job.get('Reason')}): {self.said(job)}")
            time.sleep(0.3)

    @staticmethod
    def said(job: dict[str, str]) -> str:
        """Returns the end of the log of a job."""
        path = Path(job.get("StdOut", ""))
        return path.read_text()[-4000:] if path.is_file() else "it has printed nothing"

    def _daemon(self, *command: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],  # ends with this process, also when that is killed
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        if command[0] == "munged":
            while not (self.folder / "munge" / "socket").exists() and process.poll() is None:
                time.sleep(0.05)

    def _configure(self) -> None:
        ports = free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        lines = [CONFIGURATION.format(folder=self.folder, port=ports[0], host=host)]
        for name, port in zip(NODES, ports[1:], strict=True):
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs={CPUS} RealMemory=4000 "
                f"Gres=gpu:{GPUS}"
            )
        names = ",".join(NODES)
        lines.append(f"PartitionName=low Nodes={names} Default=YES State=UP PriorityTier=1 GraceTime=60")
        lines.append(f"PartitionName=lowest Nodes={names} State=UP PriorityTier=1 GraceTime=0")
        lines.append(f"PartitionName=high Nodes={names} State=UP PriorityTier=9 PreemptMode=off")
        for number in range(GPUS):  # files in place of devices, which no test uses
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def missing_programs() -> list[str]:
    """Returns the programs that this machine lacks; in CI, Debian's packages are installed first."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if missing and os.environ.get("CI") and shutil.which("apt-get"):
        settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", "install -y --no-install-recommends slurm-wlm munge"):
            subprocess.run(["apt-get", "-qq", *command.split()], env=settings, timeout=900, check=False)
        missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    return missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A SLURM for all tests of a session."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a SLURM of its own needs Linux and root")
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not found; on Debian: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a short path, for sockets
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
