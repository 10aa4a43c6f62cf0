"""Writes a TensorBoard event file with TensorBoard's own messages and record writer.

Run: `python tests/golden/events/export.py`
The same events at the same times are written in `src/train/events.rs`, whose test compares the bytes.
"""

import sys
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
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


def main():
    folder = start(__file__, "tensorboard", "protobuf")
    events = [
        Event(wall_time=1.5, file_version="brain.Event:2"),
        Event(wall_time=2.25, step=0, summary=numbers(train__loss=3.75, train__lr=0.0)),
        Event(wall_time=1e9 + 0.125, step=300, summary=numbers(validation__loss=0.1)),
        Event(wall_time=3.0, step=70_000, session_log=SessionLog(status=SessionLog.START)),
        Event(wall_time=4.0, step=70_000, summary=words("captions", CAPTION)),
    ]
    with open(folder / "expected.tfevents", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()


if __name__ == "__main__":
    main()
