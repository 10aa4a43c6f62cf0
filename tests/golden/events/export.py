"""Writes a TensorBoard event file with TensorBoard's own messages and record writer.

Run: `python tests/golden/events/export.py`
The same events at the same times are written in `crates/train/src/events/`, whose test compares the bytes.
"""

import sys
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start  # noqa: E402

CAPTION = "| image | said |\n|---|---|\n| a.png | a red circle é |"


def numbers(**values):
    return Summary(value=[Summary.Value(tag=tag.replace("__", "/"), simple_value=x) for tag, x in values.items()])


def words(tag, text):
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=shape, string_val=[text.encode()])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def image(tag, heading, *parts):
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=shape, string_val=parts)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"), display_name=heading)
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


SETTINGS = {
    "encoder.kind": "features",
    "data.shuffle": False,
    "stitch.bias": True,
    "train.lr": 0.25,
    "train.warmup": 0,
}


def session_start(time):
    data = plugin_data_pb2.SessionStartInfo(start_time_secs=time)
    for name, value in SETTINGS.items():
        if isinstance(value, bool):
            data.hparams[name].bool_value = value
        elif isinstance(value, str):
            data.hparams[name].string_value = value
        else:
            data.hparams[name].number_value = value
    return hparams("_hparams_/session_start_info", session_start_info=data)


def session_end(time):
    data = plugin_data_pb2.SessionEndInfo(status="STATUS_SUCCESS", end_time_secs=time)
    return hparams("_hparams_/session_end_info", session_end_info=data)


def hparams(tag, **data):
    data = plugin_data_pb2.HParamsPluginData(**data)
    summary = summary_v2._summary_pb(tag, data)
    # The entries of a map have no order of their own.
    summary.value[0].metadata.plugin_data.content = data.SerializeToString(deterministic=True)
    return summary


def main():
    folder = start(__file__, "tensorboard", "protobuf")
    events = [
        Event(wall_time=1.5, file_version="brain.Event:2"),
        Event(wall_time=2.25, step=0, summary=numbers(train__loss=3.75, train__lr=0.0)),
        Event(wall_time=1e9 + 0.125, step=300, summary=numbers(validation__loss=0.1)),
        Event(wall_time=3.0, step=70_000, session_log=SessionLog(status=SessionLog.START)),
        Event(wall_time=4.0, step=70_000, summary=words("captions", CAPTION)),
        Event(wall_time=5.0, step=9, summary=image("validation/image 1", "a red circle é", b"2", b"1", b"PNG")),
        Event(wall_time=6.0, step=0, summary=session_start(1.5)),
        Event(wall_time=7.0, step=70_000, summary=session_end(2.5)),
    ]
    with open(folder / "expected.tfevents", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()


if __name__ == "__main__":
    main()
