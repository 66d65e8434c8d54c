"""What is written for Kafka, read by kafka-python; what Kafka answers is written by it."""

from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.producer import InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords

from backends.log import kafka_frames as frames
from backends.log.kafka_frames import Identity, Outcome

VALUES = st.one_of(st.binary(max_size=200), st.integers(0, 40_000).map(bytes))


@given(st.lists(VALUES, min_size=1, max_size=200), st.integers(0, 2**31 - 1), st.integers(0, 2**40))
def test_a_batch_is_read_as_it_was_meant(values: list[bytes], sequence: int, epoch_ms: int) -> None:
    made = frames.batch(values, epoch_ms, Identity(7_000_000_001, 3), sequence)
    batch: DefaultRecordBatch = MemoryRecords(made).next_batch()
    assert batch.validate_crc()
    assert batch.size_in_bytes == len(made)
    read = list(batch)
    assert [bytes(record.value) for record in read] == values
    assert [record.offset for record in read] == list(range(len(values)))
    assert {(record.key, record.timestamp, tuple(record.headers)) for record in read} == {(None, epoch_ms, ())}
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7_000_000_001, 3, sequence)
    assert (batch.last_offset_delta, batch.attributes, batch.leader_epoch) == (len(values) - 1, 0, -1)


def test_a_request_says_whom_it_is_for() -> None:
    body = frames.produce({"t.events": [(0, b"first"), (7, b"second")], "t.small": [(1, b"third")]}, 4_000)
    framed = frames.frame(frames.PRODUCE, frames.PRODUCE_VERSION, 99, body)
    assert int.from_bytes(framed[:4]) == len(framed) - 4
    request = ProduceRequest.decode(framed[4:], version=frames.PRODUCE_VERSION, header=True)
    assert (request.header.correlation_id, request.header.client_id) == (99, "zenstep")
    assert (request.transactional_id, request.acks, request.timeout_ms) == (None, -1, 4_000)
    sent = {
        (topic.name, partition.index): bytes(partition.records)
        for topic in request.topic_data
        for partition in topic.partition_data
    }
    assert sent == {("t.events", 0): b"first", ("t.events", 7): b"second", ("t.small", 1): b"third"}


def test_an_answer_tells_each_partitions_outcome() -> None:
    topic = ProduceResponse.TopicProduceResponse
    partition = topic.PartitionProduceResponse
    answer = ProduceResponse(
        version=frames.PRODUCE_VERSION,
        responses=[
            topic(
                name="t.events",
                partition_responses=[
                    partition(index=0, error_code=0, base_offset=41, log_append_time_ms=9, log_start_offset=2),
                    partition(index=5, error_code=6, base_offset=-1, log_append_time_ms=-1, log_start_offset=-1),
                ],
            )
        ],
        throttle_time_ms=0,
    )
    assert frames.produced(answer.encode(version=frames.PRODUCE_VERSION)) == {
        ("t.events", 0): Outcome(0, 41),
        ("t.events", 5): Outcome(6, -1),
    }


def test_an_identity_is_asked_for_and_understood() -> None:
    version = frames.INIT_PRODUCER_ID_VERSION
    request = InitProducerIdRequest.decode(frames.init_producer_id(), version=version)
    assert request.transactional_id is None
    answer = InitProducerIdResponse(
        version=version, throttle_time_ms=0, error_code=14, producer_id=7_000_000_001, producer_epoch=2
    )
    assert frames.identity_of(answer.encode(version=version)) == (14, Identity(7_000_000_001, 2))
