"""Apache Kafka for tests: one node in KRaft mode, as a local process or a container."""

import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from backends.log import LogUnavailable, open_admin
from tests.servers.containers import ServerContainer
from tests.servers.kafka_program import VERSION, jars, quick_options
from tests.servers.ports import end, free_port, wait_listening

IMAGE = f"apache/kafka:{VERSION}"
START_SECONDS = 60
_formatted: dict[str, bytes] = {}


class Kafka(Protocol):
    """A broker of the tests' own. `stop`, `kill` and `start` keep its port and its data; `close` is the end of it."""

    how: str
    servers: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class LocalKafka:
    """A process on this machine.

    A broker tells its clients where to find it, so who is to come through a proxy needs a listener that says so: `via`
    has the port of each such listener and the port of the proxy that is told instead. `options` are for the JVM,
    `more` are settings of the broker.
    """

    how = f"local process {VERSION}"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        via: Mapping[int, int] | None = None,
        heap: str = "512m",
        options: Sequence[str] = (),
        more: Mapping[str, object] | None = None,
    ) -> None:
        self.log = folder / "kafka.log"
        self.port = port or free_port()
        self.servers = f"127.0.0.1:{self.port}"
        self._jars = jars()
        self._options = [f"-Xmx{heap}", *options]
        self._config = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        data = folder / "data"
        controller = free_port()
        others = {f"VIA{number}": ports for number, ports in enumerate((via or {}).items())}
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(
                [
                    f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
                    *(f"{name}://127.0.0.1:{listens}" for name, (listens, _) in others.items()),
                ]
            ),
            "advertised.listeners": ",".join(
                [
                    f"PLAINTEXT://{self.servers}",
                    *(f"{name}://127.0.0.1:{told}" for name, (_, told) in others.items()),
                ]
            ),
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", "PLAINTEXT:PLAINTEXT", *(f"{name}:PLAINTEXT" for name in others)]
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": data,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            **(more or {}),
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format(data)
        self.start()

    def start(self) -> None:
        self._process = self._java("kafka.Kafka", str(self._config))
        wait_listening(self.port, START_SECONDS, self._process, self.log)
        wait_for_broker(self.servers)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()

    @property
    def process(self) -> "subprocess.Popen[bytes] | None":
        """None while it is stopped."""
        return self._process

    def _format(self, data: Path) -> None:
        """Two small files, the same for every broker here: a JVM writes them once."""
        if not _formatted:
            self._java("kafka.tools.StorageTool", "format", "-t", str(uuid.uuid4()), "-c", str(self._config)).wait(60)
            _formatted.update({file.name: file.read_bytes() for file in data.iterdir()})
        data.mkdir(exist_ok=True)
        for name, content in _formatted.items():
            (data / name).write_bytes(content)

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = ["java", *self._options, "-cp", f"{self._jars}/*", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)


def quick_kafka(folder: Path, more: Mapping[str, object] | None = None) -> LocalKafka:
    """One that is there soon and lives for a short time: for tests, never for measurements."""

    def train(folder: Path, options: list[str]) -> None:
        LocalKafka(folder, options=options).close()

    return LocalKafka(folder, options=quick_options(train), more=more)


def restless_kafka(folder: Path) -> LocalKafka:
    """One that is killed and comes back, for which a broker would wait until its former self is given up."""
    return quick_kafka(folder, {"broker.session.timeout.ms": 3_000, "broker.heartbeat.interval.ms": 500})


class ContainerKafka:
    """A container, on a port chosen before since the broker has to advertise it."""

    how = f"container {IMAGE}"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.servers = f"127.0.0.1:{port}"
        environment = {
            "KAFKA_NODE_ID": 1,
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{self.servers}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": 4,
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": 1,
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }
        self._container = ServerContainer(IMAGE, 9092, port, environment, folder / "kafka.log")
        try:
            wait_for_broker(self.servers)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self._container.start()
        wait_for_broker(self.servers)

    def stop(self) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.kill()

    def close(self) -> None:
        self._container.close()


def wait_for_broker(servers: str, seconds: float = START_SECONDS) -> None:
    """A published port answers before the broker does, so the broker itself is asked."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            open_admin(f"kafka://{servers}").close()
            return
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
