//! Reading a struct of the other side, which may be of an older or a newer minor version.

use std::fmt;
use std::mem::{MaybeUninit, size_of};

/// A struct that crosses the boundary.
///
/// # Safety
/// It is `repr(C)`, begins with `size: u32` and `version: u32`, and is valid where every byte is 0.
pub unsafe trait Table: Copy {
    /// What messages call it: its name in C.
    const NAME: &'static str;
    /// Its size in version 1.0, which every writer knows.
    const FIRST_SIZE: usize;
}

/// A struct that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// The pointer is null.
    Null {
        /// The struct.
        name: &'static str,
    },
    /// The pointer is not aligned, so it points to something else.
    Misaligned {
        /// The struct.
        name: &'static str,
    },
    /// Its size is below that of version 1.0.
    Truncated {
        /// The struct.
        name: &'static str,
        /// What it says of itself.
        size: u32,
        /// The least there is.
        least: usize,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            TableError::Null { name } => write!(f, "{name} is null"),
            TableError::Misaligned { name } => write!(f, "{name} is not aligned"),
            TableError::Truncated { name, size, least } => {
                write!(f, "{name} is truncated: it has {size} bytes, the least is {least}")
            }
        }
    }
}

impl std::error::Error for TableError {}

/// A copy of the struct at `table`: as many bytes as both sides know, zeros for the rest.
///
/// # Errors
/// A null or misaligned pointer, or a struct that is smaller than in version 1.0.
///
/// # Safety
/// `table` is null, or points to a struct that begins with its true size.
pub unsafe fn read<T: Table>(table: *const T) -> Result<T, TableError> {
    let name = T::NAME;
    if table.is_null() {
        return Err(TableError::Null { name });
    }
    if !table.is_aligned() {
        return Err(TableError::Misaligned { name });
    }
    // SAFETY: the struct begins with its size, by the caller's promise.
    let size = unsafe { table.cast::<u32>().read() };
    if (size as usize) < T::FIRST_SIZE {
        return Err(TableError::Truncated { name, size, least: T::FIRST_SIZE });
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    let bytes = size_of::<T>().min(size as usize);
    // SAFETY: `bytes` bytes are there on both sides, and the rest is zero, which is valid by the trait's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(table.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), bytes);
        Ok(copy.assume_init())
    }
}

/// Writes `value` to `out`, behind its head: as many bytes as both sides know.
///
/// # Errors
/// As [`read`].
///
/// # Safety
/// `out` is null, or points to a struct that begins with its true size and that nobody else reads or writes meanwhile.
pub unsafe fn write<T: Table>(out: *mut T, value: T) -> Result<(), TableError> {
    const HEAD: usize = 2 * size_of::<u32>();
    // SAFETY: the caller promises what `read` asks for.
    unsafe { read(out.cast_const())? };
    // SAFETY: `read` has found a size of at least that of 1.0, which holds the head.
    unsafe {
        let size = out.cast::<u32>().read() as usize;
        let bytes = size_of::<T>().min(size) - HEAD;
        let (from, to) = ((&raw const value).cast::<u8>().add(HEAD), out.cast::<u8>().add(HEAD));
        std::ptr::copy_nonoverlapping(from, to, bytes);
    }
    Ok(())
}

/// A struct whose size and version are set and whose every other byte is 0.
pub fn empty<T: Table>() -> T {
    let mut table = MaybeUninit::<T>::zeroed();
    // SAFETY: by the trait's promise the struct begins with two u32 and is valid where the rest is zero.
    unsafe {
        let head = table.as_mut_ptr().cast::<u32>();
        head.write(size_of::<T>() as u32);
        head.add(1).write(crate::LIMBER_ABI_MINOR);
        table.assume_init()
    }
}

/// Implements [`Table`] for structs of this crate, with `empty` as an associated function.
macro_rules! tables {
    ($($name:ident = $first:expr;)*) => {
        $(
            // SAFETY: repr(C), begins with its size and version, and holds integers, floats, pointers and optional
            // function pointers alone, all of which may be zero.
            unsafe impl $crate::Table for $name {
                const NAME: &'static str = stringify!($name);
                const FIRST_SIZE: usize = $first;
            }

            impl $name {
                /// The struct with its size and version set and every other byte 0.
                pub fn empty() -> Self {
                    $crate::empty()
                }
            }

            // The structs of 1.0 are as large as they were; larger ones have grown at their ends.
            const _: () = assert!(std::mem::size_of::<$name>() >= $first);
        )*
    };
}
pub(crate) use tables;

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Old {
        size: u32,
        version: u32,
        width: u64,
    }

    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct New {
        size: u32,
        version: u32,
        width: u64,
        depth: u64,
    }

    // SAFETY: repr(C), size and version first, integers alone.
    unsafe impl Table for Old {
        const NAME: &'static str = "Old";
        const FIRST_SIZE: usize = 16;
    }
    // SAFETY: as above; it was as large as `Old` once.
    unsafe impl Table for New {
        const NAME: &'static str = "New";
        const FIRST_SIZE: usize = 16;
    }

    #[test]
    fn older_and_newer_structs_are_read_as_far_as_both_know() {
        let old = Old { size: 16, version: 0, width: 7 };
        // SAFETY: the pointers lead to structs of the sizes they say.
        unsafe {
            let new = read((&raw const old).cast::<New>()).unwrap();
            assert_eq!(new, New { size: 16, version: 0, width: 7, depth: 0 });
            let new = New { size: 24, version: 1, width: 7, depth: 9 };
            assert_eq!(read((&raw const new).cast::<Old>()).unwrap(), Old { size: 24, version: 1, width: 7 });
        }
        let mut old = Old { size: 16, version: 0, width: 7 };
        let mut new = New { size: 24, version: 0, width: 7, depth: 8 };
        // SAFETY: as above.
        unsafe {
            write((&raw mut old).cast::<New>(), New { size: 24, version: 3, width: 1, depth: 2 }).unwrap();
            write((&raw mut new).cast::<Old>(), Old { size: 16, version: 3, width: 1 }).unwrap();
        }
        assert_eq!((old, new), (Old { width: 1, ..old }, New { size: 24, version: 0, width: 1, depth: 8 }));
        let fresh: New = empty();
        assert_eq!((fresh.size, fresh.version, fresh.width), (24, crate::LIMBER_ABI_MINOR, 0));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let short = Old { size: 8, version: 0, width: 7 };
        // SAFETY: the struct is larger than it says.
        unsafe {
            let message = read(&raw const short).unwrap_err().to_string();
            assert_eq!(message, "Old is truncated: it has 8 bytes, the least is 16");
            assert_eq!(read(std::ptr::null::<Old>()).unwrap_err().to_string(), "Old is null");
            let odd = (&raw const short).cast::<u8>().add(1).cast::<Old>();
            assert_eq!(read(odd).unwrap_err().to_string(), "Old is not aligned");
        }
    }
}
