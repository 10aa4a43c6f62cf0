//! SentencePiece's `precompiled_charsmap`, looked at before the `tokenizers` crate reads it, which trusts its numbers.
//!
//! The format is a length, a trie of that many bytes in Darts' double array, and texts that end in zero bytes. A node's
//! children lie at its index xor the child's byte, so a walk over all nodes sees every index that a text can lead to.
//! Source followed: SentencePiece `src/normalizer.cc`, Darts-clone `darts.h`.

/// Checks that no text leads out of the trie or of the replacement texts.
///
/// # Errors
/// What is wrong.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let wrong = |what: &str| format!("the precompiled_charsmap is damaged: {what}");
    let (length, rest) = bytes.split_at_checked(4).ok_or_else(|| wrong("it has no length"))?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let (trie, texts) = rest.split_at_checked(length).ok_or_else(|| wrong("it is cut short"))?;
    let texts = std::str::from_utf8(texts).map_err(|_| wrong("its texts are not UTF-8"))?;
    let units: Vec<usize> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let outside = || wrong("a node lies outside of it");
    let root = units.first().copied().ok_or_else(|| wrong("its trie is empty"))?;
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(root)];
    while let Some(index) = open.pop() {
        if index | 0xff >= units.len() {
            return Err(outside());
        }
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        for byte in 1..=255 {
            let unit = units[index ^ byte];
            if unit & (1 << 31 | 0xff) != byte {
                continue;
            }
            let next = (index ^ byte) ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let text = units.get(next).ok_or_else(outside)? & !(1 << 31);
                if !texts.is_char_boundary(text) {
                    return Err(wrong("a replacement lies outside of its texts"));
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_passes() {
        // "a" becomes the text at 0: the root leads to 256, its child 'a' to a leaf at 512.
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        units[256 ^ 97] = (256 ^ 97 ^ 512) << 10 | 1 << 8 | 97;
        units[512] = 1 << 31;
        let file = |units: &[u32], texts: &[u8]| {
            let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            [&(trie.len() as u32).to_le_bytes(), trie.as_slice(), texts].concat()
        };
        check(&file(&units, "é\0".as_bytes())).unwrap();
        let changed = |at: usize, unit: u32| {
            let mut units = units.clone();
            units[at] = unit;
            check(&file(&units, "é\0".as_bytes())).unwrap_err()
        };
        assert!(changed(0, 1 << 30).contains("outside of it"));
        assert!(changed(256 ^ 97, 4000 << 10 | 1 << 8 | 97).contains("outside of it"));
        assert!(changed(512, 1 << 31 | 1).contains("outside of its texts"));
        assert!(changed(512, 1 << 31 | 9).contains("outside of its texts"));
        assert!(check(&[1, 2]).unwrap_err().contains("no length"));
        assert!(check(&u32::MAX.to_le_bytes()).unwrap_err().contains("cut short"));
        assert!(check(&file(&[], b"")).unwrap_err().contains("empty"));
        assert!(check(&file(&units, &[0xff])).unwrap_err().contains("not UTF-8"));
    }
}
