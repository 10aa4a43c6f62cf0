//! Fax codes: Huffman runs (compression 2), Group 3 in one and two dimensions (3) and Group 4 (4).
//!
//! The code tables are the `fax` crate's, whose decoders lack the second dimension of Group 3, and lines without end marks.

use fax::BitReader;
use fax::maps::{Mode, black, mode, white};

/// Codes, followed by zeros without end.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader for Bits<'_> {
    type Error = ();

    fn peek(&self, bits: u8) -> Option<u16> {
        let byte = |i: usize| u32::from(self.bytes.get(self.at / 8 + i).copied().unwrap_or(0));
        let word = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        let shifted = word << (self.at % 8);
        Some(if bits == 0 { 0 } else { (shifted >> (32 - u32::from(bits))) as u16 })
    }

    fn consume(&mut self, bits: u8) -> Result<(), ()> {
        self.at += usize::from(bits);
        if self.at > self.bytes.len() * 8 + 64 { Err(()) } else { Ok(()) }
    }

    fn bits_to_byte_boundary(&self) -> u8 {
        (self.at.wrapping_neg() % 8) as u8
    }
}

impl Bits<'_> {
    fn ended(&self) -> bool {
        self.at >= self.bytes.len() * 8
    }

    /// Length of a run: any number of codes for multiples of 64, then one below 64.
    fn run(&mut self, is_black: bool) -> Option<usize> {
        let mut length = 0;
        loop {
            let part = if is_black { black::decode(self) } else { white::decode(self) }?;
            length += usize::from(part);
            if part < 64 {
                return Some(length);
            }
        }
    }

    /// Passes zeros and the end mark behind them, if there is one here.
    fn end_mark(&mut self) -> bool {
        let start = self.at;
        if self.peek(11) != Some(0) {
            return false;
        }
        while !self.ended() && self.peek(1) == Some(0) {
            self.at += 1;
        }
        let found = !self.ended();
        self.at = if found { self.at + 1 } else { start };
        found
    }
}

/// Decodes rows of `width` bits, `stride` bytes each, black being 1; false where the codes give out early.
pub(super) fn decode(bytes: &[u8], scheme: u32, options: u64, width: usize, stride: usize, out: &mut [u8]) -> bool {
    let mut bits = Bits { bytes, at: 0 };
    let mut above: Vec<usize> = Vec::new();
    for row in out.chunks_exact_mut(stride) {
        if bits.ended() {
            return false;
        }
        let mut two_dimensions = scheme == 4;
        match scheme {
            2 => bits.at = bits.at.next_multiple_of(8),
            3 => {
                if !bits.end_mark() && options & 4 != 0 {
                    bits.at = bits.at.next_multiple_of(8);
                }
                if options & 1 != 0 {
                    two_dimensions = bits.peek(1) == Some(0);
                    bits.at += 1;
                }
            }
            _ => {}
        }
        let changes =
            if two_dimensions { line_by_above(&mut bits, &above, width) } else { line_by_runs(&mut bits, width) };
        let Some(changes) = changes else { return false };
        for black in changes.chunks(2) {
            let end = black.get(1).copied().unwrap_or(width).min(width);
            (black[0].min(width)..end).for_each(|x| row[x / 8] |= 0x80 >> (x % 8));
        }
        above = changes;
    }
    true
}

/// The positions where the colour changes, in a line of runs, white first.
fn line_by_runs(bits: &mut Bits, width: usize) -> Option<Vec<usize>> {
    let (mut at, mut is_black, mut changes) = (0, false, Vec::new());
    while at < width {
        at += bits.run(is_black)?;
        changes.push(at.min(width));
        is_black = !is_black;
    }
    Some(changes)
}

/// The same in a line that is told by the changes in the one above it.
fn line_by_above(bits: &mut Bits, above: &[usize], width: usize) -> Option<Vec<usize>> {
    let (mut at, mut is_black, mut changes) = (0, false, Vec::new());
    let mut begun = false;
    while at < width {
        // The first change above to the other colour, right of here, and the one after it.
        let right = |x: usize| x > at || (!begun && x == 0);
        let first = above.iter().enumerate().skip(usize::from(is_black)).step_by(2).find(|(_, x)| right(**x));
        let (b1, b2) = match first {
            Some((index, x)) => (*x, above.get(index + 1).copied().unwrap_or(width)),
            None => (width, width),
        };
        match mode::decode(bits)? {
            Mode::Pass => at = b2,
            Mode::Vertical(delta) => {
                let to = b1.checked_add_signed(isize::from(delta)).filter(|to| *to >= at && *to <= width)?;
                changes.push(to);
                (at, is_black) = (to, !is_black);
            }
            Mode::Horizontal => {
                let middle = at.checked_add(bits.run(is_black)?)?.min(width);
                let end = middle.checked_add(bits.run(!is_black)?)?.min(width);
                changes.extend([middle, end]);
                at = end;
            }
            Mode::Extension | Mode::EOF => return None,
        }
        begun = true;
    }
    Some(changes)
}
