"""`--wait`: an installation is prepared while what it needs is still starting."""

import json
import os
import subprocess

from tests.commands import PROGRAM
from tests.servers.kafka import Kafka
from tests.servers.ports import free_port

NOT_YET = "Not there yet: trying for {} seconds.\n"


def start(*arguments: str, **settings: str) -> "subprocess.Popen[str]":
    environment = os.environ | {f"ZENSTEP_{name.upper()}": value for name, value in settings.items()}
    whole = [str(PROGRAM), *arguments]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_topics_are_created_once_kafka_has_started(private_kafka: Kafka) -> None:
    private_kafka.stop()
    process = start("topics", "create", "--wait", "90", "--json", log_url=f"kafka://{private_kafka.servers}")
    assert process.stderr is not None
    assert process.stderr.readline() == NOT_YET.format(90)
    private_kafka.start()
    result, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert all(topic["created"] for topic in json.loads(result)["topics"])


def test_a_store_that_never_starts_is_an_error_once_the_wait_is_over() -> None:
    process = start("migrate", "--wait", "3", store_url=f"postgresql://zenstep@127.0.0.1:{free_port()}/zenstep")
    result, said = process.communicate(timeout=60)
    assert (process.returncode, result) == (1, "")
    assert said.startswith(NOT_YET.format(3) + "Error: the store does not answer")


def test_without_a_wait_it_says_so_at_once() -> None:
    process = start("topics", "create", log_url=f"kafka://127.0.0.1:{free_port()}")
    result, said = process.communicate(timeout=60)
    assert (process.returncode, result) == (1, "")
    assert said.startswith("Error: the log does not answer")
