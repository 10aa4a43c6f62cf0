//! The allow-list: every class and function that a weights file may name, and what naming it means here.
//!
//! Nothing outside of this table is ever looked up, imported or called, and what is in it is data, not code.

use crate::stored::Element;

/// A class or function of the allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// A dictionary, from nothing or from pairs.
    Dict,
    /// A tensor: `_rebuild_tensor`, `_rebuild_tensor_v2` (storage, offset, shape, strides, ...).
    Tensor,
    /// A tensor whose type stands in its arguments: `_rebuild_tensor_v3`.
    TypedTensor,
    /// A function that wraps its first argument: parameters, `torch.Size`, TorchScript's typed lists.
    First,
    /// `_rebuild_from_type_v2` (function, type, arguments, state).
    FromType,
    /// A class of storages; None where it is plain bytes.
    Storage(Option<Element>),
    /// An element type.
    Type(Element),
    /// A class that is named, never called.
    Mark,
    /// A class or function whose results no tensor is made of.
    Inert,
    /// A class of a TorchScript archive.
    Script,
}

/// The meaning of a name; None where it is not on the list.
pub fn allowed(module: &str, name: &str) -> Option<Global> {
    if module == "__torch__" || module.starts_with("__torch__.") {
        return Some(Global::Script);
    }
    Some(match (module, name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "complex" | "bytearray" | "slice" | "range")
        | ("argparse", "Namespace")
        | ("collections", "defaultdict" | "Counter")
        | ("numpy", "dtype")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("_codecs", "encode")
        | ("torch", "device") => Global::Inert,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") | ("torch", "Size") => Global::First,
        (
            "torch.jit._pickle",
            "build_intlist" | "build_tensorlist" | "build_doublelist" | "build_boollist" | "restore_type_tag",
        ) => Global::First,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::FromType,
        ("torch.nn.parameter", "Parameter" | "Buffer") | ("torch", "Tensor") => Global::Mark,
        ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => Global::Storage(None),
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => Global::Storage(Some(storage_element(name)?)),
        ("torch", _) => Global::Type(type_element(name)?),
        _ => return None,
    })
}

/// The elements of `torch.FloatStorage` and its kin.
fn storage_element(name: &str) -> Option<Element> {
    Element::named(match name {
        "FloatStorage" => "F32",
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "DoubleStorage" => "F64",
        "LongStorage" => "I64",
        "IntStorage" => "I32",
        "ShortStorage" => "I16",
        "CharStorage" => "I8",
        "ByteStorage" => "U8",
        "BoolStorage" => "BOOL",
        "ComplexFloatStorage" => "C64",
        "ComplexDoubleStorage" => "C128",
        _ => return None,
    })
}

/// The elements of `torch.float32` and its kin.
fn type_element(name: &str) -> Option<Element> {
    Element::named(match name {
        "float32" | "float" => "F32",
        "float16" | "half" => "F16",
        "bfloat16" => "BF16",
        "float64" | "double" => "F64",
        "int64" | "long" => "I64",
        "int32" | "int" => "I32",
        "int16" | "short" => "I16",
        "int8" => "I8",
        "uint64" => "U64",
        "uint32" => "U32",
        "uint16" => "U16",
        "uint8" => "U8",
        "bool" => "BOOL",
        "complex64" | "cfloat" => "C64",
        "complex128" | "cdouble" => "C128",
        "float8_e4m3fn" => "F8_E4M3",
        "float8_e5m2" => "F8_E5M2",
        "float8_e4m3fnuz" => "F8_E4M3FNUZ",
        "float8_e5m2fnuz" => "F8_E5M2FNUZ",
        "float8_e8m0fnu" => "F8_E8M0",
        _ => return None,
    })
}

/// What is said of a name that is not on the list.
pub fn refusal(module: &str, name: &str) -> String {
    let full: String = format!("{module}.{name}").chars().take(200).collect();
    format!(
        "refuses the global {full:?}: a weights file may hold tensors and plain containers only \
         (save a state dict of plain tensors)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_closed() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("torch", "QuantumStorage"),
            ("torch", "QInt8Storage"),
            ("torch", "serialization.os.system"),
            ("torch.nn", "Sequential"),
            ("__torch__x", "y"),
            ("torch.storage", "_load_from_bytes"),
            ("numpy", "load"),
        ] {
            assert_eq!(allowed(module, name), None, "{module}.{name}");
        }
        assert_eq!(allowed("torch", "HalfStorage"), Some(Global::Storage(Element::named("F16"))));
        assert_eq!(allowed("torch", "bfloat16"), Some(Global::Type(Element::named("BF16").unwrap())));
        assert_eq!(allowed("__torch__.clip.model", "CLIP"), Some(Global::Script));
        assert!(refusal("posix", "system").starts_with("refuses the global \"posix.system\": a weights file may hold"));
    }
}
