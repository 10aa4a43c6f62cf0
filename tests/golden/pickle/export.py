"""Writes good, odd and hostile PyTorch checkpoints for the reader that never executes anything.

Hostile pickles are assembled opcode by opcode and are never loaded here: an unpickler that obeys one would call a function.
The calls they carry are harmless even so (`true`, `1+1`).

Run: `python tests/golden/pickle/export.py`
"""

import io
import pickle
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

GOOD, EITHER, BAD = {}, {}, {}
KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int64: "i64",
         torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool"}


# The opcodes, in the words of `pickletools`.

PROTO2 = b"\x80\x02"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value):
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def integer(value):
    return b"J" + struct.pack("<i", value) if -2**31 <= value < 2**31 else long(value)


def long(value):
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def stacked(module, attribute):
    return short(module) + short(attribute) + b"\x93"


def sequence(*items):
    return b"(" + b"".join(items) + b"t"


def reduce(function, *items):
    return function + sequence(*items) + b"R"


def mapping(**items):
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


FALSE = b"\x89"
ORDERED = reduce(name("collections", "OrderedDict"))


def storage(kind="FloatStorage", key="0", place="cpu", count=4):
    return sequence(text("storage"), name("torch", kind), text(key), text(place), integer(count)) + b"Q"


def tensor(shape, strides, offset=0, stored=None, rebuild=name("torch._utils", "_rebuild_tensor_v2")):
    return reduce(rebuild, stored or storage(), integer(offset), sequence(*map(integer, shape)), sequence(*map(integer, strides)), FALSE, ORDERED)


def whole(body):
    return PROTO2 + body + b"."


X = torch.tensor([1.0, 2.0, 3.0, 4.0])
FOUR = struct.pack("<4f", *X.tolist())


def container(pickled, storages=None, order=b"little", deflated=False, top="archive"):
    """The zip that `torch.save` writes: every entry stored, data on 64-byte bounds (not needed here)."""
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as archive:
        def add(entry, data):
            # A fixed date, so that a second run writes the same bytes.
            info = zipfile.ZipInfo(f"{top}/{entry}", (1980, 1, 1, 0, 0, 0))
            info.compress_type = kind
            archive.writestr(info, data)

        if pickled is not None:
            add("data.pkl", pickled)
        if order is not None:
            add("byteorder", order)
        for key, data in ({"0": FOUR} if storages is None else storages).items():
            add(f"data/{key}", data)
        add("version", b"3\n")
    return out.getvalue()


def saved(value, **settings):
    out = io.BytesIO()
    torch.save(value, out, **settings)
    return out.getvalue()


def describe(value, prefix=""):
    """Tensors by dotted name with dtype, shape and values; other values beside them."""
    tensors, others = {}, {}
    for key, item in value.items():
        full = f"{prefix}{key}"
        if torch.is_tensor(item):
            flat = item.detach().double().reshape(-1)
            tensors[full] = {"dtype": KINDS[item.dtype], "shape": list(item.shape), "sum": flat.sum().item(), "values": flat.tolist()}
        elif isinstance(item, dict):
            inner = describe(item, f"{full}.")
            tensors |= inner["tensors"]
            others |= inner["others"]
        else:
            others[full] = repr(item)
    return {"tensors": tensors, "others": others}


def good(file, value, data=None, kept=None, **settings):
    data = saved(value, **settings) if data is None else data
    (folder / file).write_bytes(data)
    # What torch itself reads from the file is what is expected.
    read = torch.load(io.BytesIO(data), weights_only=False, map_location="cpu")
    assert describe(read) == describe(value), file
    (GOOD if kept is None else kept)[file] = describe(value)


def either(file, data, value):
    """Neither reading nor a clear refusal is wrong; where it loads, the tensors are these."""
    (folder / file).write_bytes(data)
    EITHER[file] = describe(value)


def bad(file, reason, data):
    (folder / file).write_bytes(data)
    BAD[file] = reason


def write_good():
    g = torch.Generator().manual_seed(7)
    w, b = torch.randn(3, 4, generator=g), torch.randn(3, generator=g)
    good("good_ordered.pt", OrderedDict(weight=w, bias=b))
    good("good_dict.pt", {"weight": w, "bias": b})
    for protocol in [3, 4, 5]:
        good(f"good_protocol{protocol}.pt", OrderedDict(weight=w, bias=b), pickle_protocol=protocol)
    good("good_parameters.pt", {"weight": nn.Parameter(w), "frozen": nn.Parameter(b, requires_grad=False)})
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=g))
    # A module's state dict carries `_metadata` as an attribute of the OrderedDict, so a BUILD.
    good("good_metadata.pt", module.state_dict())
    good("good_tied.pt", {"wte": w, "lm_head": w, "row": w[1], "column": w[:, 2], "tail": w.reshape(-1)[5:9]})
    good("good_strided.pt", {"transposed": w.T, "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1), "step": torch.arange(10.0)[1::3],
                             "expanded": b[:, None].expand(3, 2), "offset": torch.arange(12.0).reshape(3, 4)[1:, 1:3]})
    good("good_empty.pt", {"none": torch.zeros(0), "rows": torch.zeros(0, 4), "columns": torch.zeros(3, 0), "scalar": torch.tensor(2.5), "integer": torch.tensor(7)})
    good("good_dtypes.pt", {"f32": w, "f16": w.half(), "bf16": w.bfloat16(), "f64": w.double(), "i64": torch.tensor([-1, 2**40]), "i32": torch.tensor([-5, 6], dtype=torch.int32),
                            "i16": torch.tensor([-300, 300], dtype=torch.int16), "i8": torch.tensor([-7, 8], dtype=torch.int8), "u8": torch.tensor([0, 255], dtype=torch.uint8),
                            "bool": torch.tensor([True, False, True])})
    good("good_mixed.pt", OrderedDict([("visual.weight", w), ("input_resolution", 384), ("context_length", torch.tensor(77)), ("name", "RN50x16"), ("nothing", None),
                                       ("flag", True), ("rate", 0.1), ("big", 2**70), ("list", [1, 2, "three"]), ("tuple", (1, (2, 3))), ("bytes", b"ab\x00")]))
    good("good_nested.pt", {"state_dict": OrderedDict(weight=w, inner={"bias": b}), "epoch": 3, "optimizer": {"lr": 1e-3}})
    good("good_names.pt", {"": w, "a.b/c d": b, "имя-重み-😀": b[:1], "../../escape": b[1:]})
    good("good_no_byteorder.pt", {"x": X}, container(whole(mapping(x=tensor([4], [1]))), order=None))
    good("good_other_folder.pt", {"x": X}, container(whole(mapping(x=tensor([4], [1]))), top="proj"))
    good("good_cuda.pt", {"x": X}, container(whole(mapping(x=tensor([4], [1], stored=storage(place="cuda:0"))))))
    # One storage, overlapping views, and an offset at its very end.
    good("good_end.pt", {"last": torch.tensor([4.0]), "none": torch.zeros(0)},
         container(whole(mapping(last=tensor([1], [1], 3), none=tensor([0], [1], 4)))))
    # The stride of a dimension of one element may be anything.
    good("good_loose_stride.pt", {"x": torch.tensor([[1.0, 2.0]])}, container(whole(mapping(x=tensor([1, 2], [1000000, 1])))))
    rebuild = name("torch._utils", "_rebuild_tensor")
    plain = reduce(rebuild, storage(), integer(0), sequence(integer(4)), sequence(integer(1)))
    good("good_rebuild_v1.pt", {"x": X}, container(whole(mapping(x=plain))))

    good("either_legacy.pt", OrderedDict(weight=w, bias=b), kept=EITHER, _use_new_zipfile_serialization=False)
    good("either_deflated.pt", {"x": X}, container(whole(mapping(x=tensor([4], [1]))), deflated=True), kept=EITHER)
    big = struct.pack(">4f", 1.0, 2.0, 3.0, 4.0)
    good("either_big_endian.pt", {"x": X}, container(whole(mapping(x=tensor([4], [1]))), {"0": big}, order=b"big"), kept=EITHER)
    # A tensor of a type that candle lacks, beside one that it has.
    either("either_complex.pt", saved({"x": X[:2], "z": torch.tensor([1 + 2j])}), {"x": X[:2]})


def write_hostile():
    """Pickles that name what no checkpoint needs: refused before anything is looked up."""
    calls = {
        "os_system": reduce(name("os", "system"), text("true")),
        "posix_system": reduce(name("posix", "system"), text("true")),
        "nt_system": reduce(name("nt", "system"), text("true")),
        "builtins_eval": reduce(name("builtins", "eval"), text("1+1")),
        "builtin_eval_py2": reduce(name("__builtin__", "eval"), text("1+1")),
        "builtins_getattr": reduce(name("builtins", "getattr"), name("os", "path"), text("join")),
        "subprocess": reduce(name("subprocess", "Popen"), text("true")),
        "stack_global": reduce(stacked("os", "system"), text("true")),
        "stack_global_dotted": reduce(stacked("torch", "serialization.os.system"), text("true")),
        # The names are put in the memo and taken out again, to hide them from a plain scan.
        "stack_global_memo": short("os") + b"q\x00" + b"0" + short("system") + b"q\x01" + b"0" + reduce(b"h\x00h\x01\x93", text("true")),
        "global_nested_class": reduce(name("torch.nn", "Sequential.__class__.__base__")),
        "torch_load": reduce(name("torch", "load"), text("other.pt")),
        "torch_hub": reduce(name("torch.hub", "load"), text("owner/name")),
        "numpy_load": reduce(name("numpy", "load"), text("other.npy")),
        "instance": b"(" + text("true") + b"ios\nsystem\n",
        "object": b"(" + name("os", "system") + text("true") + b"o",
        "new_object": name("subprocess", "Popen") + sequence(text("true")) + b"\x81",
        "new_object_ex": name("subprocess", "Popen") + sequence() + mapping(args=text("true")) + b"\x92",
        "build": reduce(name("torch.nn.modules.linear", "Identity")) + mapping(__class__=name("os", "system")) + b"b",
        "extension": b"\x82\x01",
        "persistent_text": b"Pos.system\n",
        "allowed_name_wrong_use": reduce(name("torch._utils", "_rebuild_tensor_v2"), text("true")),
        "storage_called": reduce(name("torch", "FloatStorage"), integer(10**9)),
        "ordered_dict_eval": reduce(name("collections", "OrderedDict"), reduce(name("builtins", "eval"), text("1+1"))),
        "newline_in_name": reduce(b"\x8c\x0acollection\x8c\x06system\x93", text("true")),
    }
    for case, call in calls.items():
        # Beside a good tensor, so that a reader which only looks at tensors is no excuse.
        body = mapping(x=tensor([4], [1]), y=call)
        bad(f"bad_{case}.pt", "call", container(whole(body)))
    for case in ["os_system", "stack_global"]:
        bad(f"bad_raw_{case}.pkl", "call", whole(calls[case]))
    bad("bad_before_dict.pt", "call", container(whole(calls["os_system"] + b"0" + mapping(x=tensor([4], [1])))))
    # Bytes after STOP are never run.
    either("either_after_stop.pt", container(whole(mapping(x=tensor([4], [1]))) + whole(calls["os_system"])), {"x": X})
    # A whole module instead of its state dict: a class of the author's own.
    bad("bad_module.pt", "class", saved(nn.Sequential(nn.Linear(2, 3))))


def write_resources():
    """Small files that ask for much memory, deep recursion or endless work."""
    bad("bad_marks.pt", "nesting", container(whole(b"(" * 100_000)))
    lists, tuples = b"]" * 50_000 + b"a" * 49_999, b")" + b"\x85" * 100_000
    dicts = b"}" + (text("k") + b"}") * 10_000 + b"s" * 10_000
    bad("bad_lists.pt", "no dictionary", container(whole(lists)))
    bad("bad_tuples.pt", "no dictionary", container(whole(tuples)))
    for case, deep in [("lists", lists), ("tuples", tuples), ("dicts", dicts)]:
        either(f"either_deep_{case}.pt", container(whole(mapping(x=deep))), {})
    either("either_memo_index.pt", container(whole(mapping(x=text("a") + b"r" + struct.pack("<I", 2**32 - 1)))), {})
    bad("bad_memo_absent.pt", "memo", container(whole(b"j" + struct.pack("<I", 4_000_000_000))))
    # Each level holds the one before ten times: a hundred bytes that describe 10^30 items.
    laughs = b"]" + b"q\x00" + b"".join(b"0](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(30))
    either("either_laughs.pt", container(whole(mapping(x=laughs))), {})
    # A list that holds itself.
    bad("bad_cycle.pt", "cycle", container(whole(b"]q\x00h\x00a")))
    either("either_self_dict.pt", container(whole(b"}q\x00" + text("x") + b"h\x00s")), {})
    bad("bad_long_string.pt", "length", container(whole(b"X" + struct.pack("<I", 2**32 - 1) + b"abc")))
    bad("bad_long_string8.pt", "length", container(whole(b"\x8d" + struct.pack("<Q", 2**63) + b"abc")))
    either("either_frame.pt", container(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}."), {})
    bad("bad_bytearray8.pt", "length", container(whole(b"\x96" + struct.pack("<Q", 2**62))))
    bad("bad_long4.pt", "length", container(whole(b"\x8b" + struct.pack("<i", -5))))
    bad("bad_integer_text.pt", "number", container(whole(b"I" + b"9" * 10_000 + b"\n")))
    bad("bad_empty_pickle.pt", "end", container(b""))
    bad("bad_no_stop.pt", "end", container(PROTO2 + mapping(x=tensor([4], [1]))))
    bad("bad_underflow.pt", "stack", container(whole(b"R")))
    bad("bad_no_mark.pt", "stack", container(whole(text("a") + b"t")))
    bad("bad_pop_mark.pt", "stack", container(whole(b"1")))
    bad("bad_unknown_opcode.pt", "opcode", container(whole(b"\xff")))
    either("either_protocol.pt", container(b"\x80\xc8}."), {})
    bad("bad_root_integer.pt", "no dictionary", container(whole(integer(3))))
    bad("bad_root_list.pt", "no dictionary", container(whole(b"]")))
    bad("bad_unhashable_key.pt", "key", container(whole(b"}(" + b"]" + tensor([4], [1]) + b"u")))
    bad("bad_odd_items.pt", "stack", container(whole(b"}(" + text("x") + b"u")))
    bad("bad_not_utf8.pt", "text", container(whole(b"}(" + b"X\x02\x00\x00\x00\xff\xfe" + tensor([4], [1]) + b"u")))


def write_tensors_bad():
    """Tensors that do not fit their storages."""
    def one(file, reason, body, **settings):
        bad(file, reason, container(whole(mapping(x=body)), **settings))

    one("bad_short_storage.pt", "storage", tensor([1000], [1]))
    one("bad_short_bytes.pt", "storage", tensor([100], [1], stored=storage(count=100)))
    one("bad_count_lie.pt", "storage", tensor([4], [1], stored=storage(count=4)), storages={"0": FOUR[:10]})
    one("bad_stride_outside.pt", "storage", tensor([2, 2], [100, 1]))
    one("bad_stride_negative.pt", "stride", tensor([2], [-1]))
    one("bad_offset_outside.pt", "storage", tensor([2], [1], 3))
    one("bad_offset_negative.pt", "offset", tensor([2], [1], -1))
    one("bad_size_negative.pt", "shape", tensor([-4], [1]))
    one("bad_sizes_negative.pt", "shape", tensor([-2, -2], [2, 1]))
    one("bad_overflow_size.pt", "shape", tensor([2**62, 4], [4, 1]))
    one("bad_overflow_wraps.pt", "shape", tensor([2**32, 2**32], [0, 0]))
    one("bad_overflow_stride.pt", "storage", tensor([2, 2], [2**63 - 1, 2**63 - 1]))
    one("bad_overflow_offset.pt", "storage", tensor([2], [1], 2**63 - 1))
    one("bad_size_huge_integer.pt", "shape", tensor([2**70], [1]))
    # All four trillion elements are one float: no storage is overrun, but an eager reader runs out of memory.
    one("bad_expanded.pt", "size", tensor([2_000_000, 2_000_000], [0, 0]))
    one("bad_rank.pt", "stride", tensor([2, 2], [1]))
    one("bad_shape_text.pt", "shape", reduce(name("torch._utils", "_rebuild_tensor_v2"), storage(), integer(0), sequence(text("4")), sequence(integer(1)), FALSE, ORDERED))
    one("bad_arguments.pt", "arguments", reduce(name("torch._utils", "_rebuild_tensor_v2"), storage()))
    one("bad_storage_missing.pt", "storage", tensor([4], [1], stored=storage(key="9")))
    one("bad_storage_path.pt", "storage", tensor([4], [1], stored=storage(key="../../../../etc/hostname")))
    one("bad_storage_absolute.pt", "storage", tensor([4], [1], stored=storage(key="/etc/hostname")))
    one("bad_storage_kind.pt", "dtype", tensor([4], [1], stored=storage("QuantumStorage")))
    one("bad_storage_dtype.pt", "storage", tensor([4], [1], stored=storage("DoubleStorage")))
    one("bad_persistent.pt", "storage", tensor([4], [1], stored=sequence(text("module"), text("0")) + b"Q"))
    either("either_name_twice.pt", container(whole(b"}(" + (text("x") + tensor([4], [1])) + (text("x") + tensor([2], [1])) + b"u")), {"x": X[:2]})
    # Two tensors, one storage key, two types.
    two = mapping(x=tensor([4], [1]), y=tensor([2], [1], stored=storage("IntStorage", count=4)))
    either("either_two_types.pt", container(whole(two)), {"x": X, "y": X[:2].view(torch.int32)})


def write_containers():
    """Broken and treacherous zip files."""
    data = container(whole(mapping(x=tensor([4], [1]))))
    for part in [0, 1, 3, 10, 30, 60, len(data) // 2, len(data) - 100, len(data) - 22, len(data) - 10, len(data) - 1]:
        bad(f"bad_truncated_{part}.pt", "zip", data[:part])
    saved_by_torch = saved({"x": torch.arange(300.0)})
    for percent in [20, 50, 80, 95]:
        bad(f"bad_truncated_torch_{percent}.pt", "zip", saved_by_torch[: len(saved_by_torch) * percent // 100])
    bad("bad_text.pt", "format", b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 12\n")
    bad("bad_html.pt", "format", b"<!DOCTYPE html><html><body>404 not found</body></html>\n")
    bad("bad_zeros.pt", "format", bytes(4096))
    bad("bad_other_zip.pt", "zip", container(None))

    directory = data.rindex(b"PK\x05\x06")
    start_of = struct.unpack("<I", data[directory + 16:directory + 20])[0]

    def patched(at, value):
        return data[:at] + value + data[at + len(value):]

    bad("bad_directory_signature.pt", "zip", patched(start_of, b"XXXX"))
    either("either_directory_offset.pt", patched(directory + 16, struct.pack("<I", 2**32 - 2)), {"x": X})
    either("either_directory_size.pt", patched(directory + 12, struct.pack("<I", 2**32 - 2)), {"x": X})
    bad("bad_directory_count.pt", "zip", patched(directory + 8, struct.pack("<HH", 60000, 60000)))
    # The first entry of the directory is data.pkl: bytes 20 and 24 hold its sizes, 42 where its header lies.
    bad("bad_entry_size.pt", "zip", patched(start_of + 20, struct.pack("<II", 2**31, 2**31)))
    either("either_entry_sizes_differ.pt", patched(start_of + 24, struct.pack("<I", 2**31)), {"x": X})
    bad("bad_entry_offset.pt", "zip", patched(start_of + 42, struct.pack("<I", 2**31)))
    bad("bad_entry_header.pt", "zip", patched(0, b"XXXX"))
    bad("bad_entry_method.pt", "zip", patched(start_of + 10, struct.pack("<H", 99)))
    bad("bad_entry_encrypted.pt", "zip", patched(start_of + 8, struct.pack("<H", 1)))
    flip = data.index(FOUR)
    # A mapped file's checksums are not read, so the changed values may also load.
    either("either_checksum.pt", patched(flip, struct.pack("<f", 1.5)), {"x": torch.tensor([1.5, 2.0, 3.0, 4.0])})

    # 200 MB of zeros in 200 kB: as a storage that the tensor does not need, and as the pickle itself.
    zeros = bytes(200 << 20)
    bomb = mapping(x=tensor([4], [1], stored=storage(count=50 << 20)))
    either("either_bomb_storage.pt", container(whole(bomb), {"0": zeros}, deflated=True), {"x": torch.zeros(4)})
    bad("bad_bomb_pickle.pt", "size", container(PROTO2 + b"N" + zeros, deflated=True))
    twice = io.BytesIO(data)
    with zipfile.ZipFile(twice, "a") as archive:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(zipfile.ZipInfo("archive/data.pkl", (1980, 1, 1, 0, 0, 0)), whole(reduce(name("os", "system"), text("true"))))
    either("either_two_pickles.pt", twice.getvalue(), {"x": X})


if __name__ == "__main__":
    folder = start(__file__, "torch")
    for old in [*folder.glob("*.pt"), *folder.glob("*.pkl")]:
        old.unlink()
    write_good()
    write_hostile()
    write_resources()
    write_tensors_bad()
    write_containers()
    write_json(folder / "expected.json", {"good": GOOD, "either": EITHER, "bad": BAD})
    print(len(GOOD), "good,", len(EITHER), "that may load or be refused,", len(BAD), "to refuse")
