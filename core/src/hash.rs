//! SHA-256 in the few forms that the workspace needs: of a file, of some bytes as text, of some bytes as a number.

use sha2::{Digest, Sha256};
use std::io::{Read, Result};

/// Bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of all that `reader` gives, in hexadecimal; a piece is held at a time.
///
/// # Errors
/// A reader that cannot be read.
pub fn sha256(mut reader: impl Read) -> Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

/// The first half of the hash of `parts`, one behind the other, in hexadecimal: enough to tell things apart.
pub fn short(parts: &[&[u8]]) -> String {
    hex(&of(parts)[..16])
}

/// A number made of the hash of `parts`, one behind the other: as good as random, and always the same.
pub fn number(parts: &[&[u8]]) -> u64 {
    of(parts).iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn of(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        // printf abc | sha256sum
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&b"abc"[..]).unwrap(), abc);
        assert_eq!(short(&[b"a", b"", b"bc"]), abc[..32]);
        assert_eq!(number(&[b"ab", b"c"]), 0xba78_16bf_8f01_cfea);
        // head -c 200000 /dev/zero | sha256sum: several pieces.
        let zeros = sha256(std::io::repeat(0).take(200_000)).unwrap();
        assert_eq!(zeros, "4cbbd9be0cba685835755f827758705db5a413c5494c34262cd25946a73e7582");
    }
}
