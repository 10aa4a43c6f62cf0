//! The code books of ggml's iq formats, in two bits a number, or four bits of those of iq3.
//!
//! Data of ggml (`ggml-common.h`, MIT licence, copyright the ggml authors); `grids.py` takes them from the `gguf` package.

const BYTES: &[u8] = include_bytes!("grids.bin");

/// `N` entries of `W` numbers of `bits` bits from byte `at` on, each one of `values`.
const fn unpack<const N: usize, const W: usize>(at: usize, bits: usize, values: &[i8]) -> [[i8; W]; N] {
    let mut out = [[0; W]; N];
    let mut i = 0;
    while i < N * W {
        let byte = BYTES[at + i * bits / 8];
        out[i / W][i % W] = values[(byte >> (i * bits % 8)) as usize & ((1 << bits) - 1)];
        i += 1;
    }
    out
}

const LEVELS_2: [i8; 3] = [8, 25, 43];

pub(super) static IQ2_XXS: [[i8; 8]; 256] = unpack(0, 2, &LEVELS_2);
pub(super) static IQ2_XS: [[i8; 8]; 512] = unpack(512, 2, &LEVELS_2);
pub(super) static IQ2_S: [[i8; 8]; 1024] = unpack(1536, 2, &LEVELS_2);
pub(super) static IQ1: [[i8; 8]; 2048] = unpack(3584, 2, &[-1, 0, 1]);
pub(super) static IQ3_XXS: [[i8; 4]; 256] = unpack(7680, 4, &[4, 12, 20, 28, 36, 44, 52, 62]);
pub(super) static IQ3_S: [[i8; 4]; 512] = unpack(8192, 4, &[1, 3, 5, 7, 9, 11, 13, 15]);
