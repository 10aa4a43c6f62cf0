//! Whether the pixels of a JPEG without an end mark are there: Pillow calls it truncated where libjpeg asks for more bytes than the file has.
//!
//! libjpeg fills a buffer of 64 bits ahead of its codes, so it may ask for bytes that it does not need. To give the same answer, the codes are passed here as its `jdhuff.c` does, without the coefficients.

use super::jpeg::segments;

/// Bytes that Pillow reads at once.
const BLOCK: usize = 1 << 16;
/// Bytes that a block may take at most, for which libjpeg's fast loop wants room.
const BLOCK_BYTES: usize = 512;

/// The file gave out.
struct Ended;

/// Whether libjpeg gets through all pixels without a byte past the file's last.
pub(super) fn reaches(bytes: &[u8]) -> bool {
    let Some(mut scan) = Scan::new(bytes) else { return false };
    for mcu in 0..scan.mcus {
        loop {
            let before = scan.reader;
            match scan.mcu(mcu) {
                Ok(()) => break,
                Err(Ended) if scan.limit < bytes.len() => {
                    // libjpeg starts the unit again once Pillow has read on.
                    scan.reader = before;
                    scan.limit = (scan.limit + BLOCK).min(bytes.len());
                }
                Err(Ended) => return false,
            }
        }
    }
    true
}

/// Codes by their length: the first code past those of a length, and where its values start.
struct Codes {
    end: [u32; 17],
    shift: [i64; 17],
    values: Vec<u8>,
}

impl Codes {
    fn new(counts: &[u8], values: &[u8]) -> Self {
        let (mut code, mut index) = (0_u32, 0_i64);
        let (mut end, mut shift) = ([0; 17], [0; 17]);
        for length in 1..=16 {
            let count = u32::from(counts[length - 1]);
            shift[length] = index - i64::from(code);
            code += count;
            end[length] = if count > 0 { code } else { 0 };
            index += i64::from(count);
            code <<= 1;
        }
        Self { end, shift, values: values.to_vec() }
    }
}

#[derive(Clone, Copy, Default)]
struct Reader {
    at: usize,
    bits: u64,
    left: u32,
    marker: Option<u8>,
    /// A marker has cut the codes short; libjpeg leaves the rest grey.
    short: bool,
}

struct Scan<'a> {
    bytes: &'a [u8],
    reader: Reader,
    /// Bytes that have been read.
    limit: usize,
    /// Tables of each block of a unit: its first code's and the others'.
    blocks: Vec<(usize, usize)>,
    first: [Option<Codes>; 4],
    others: [Option<Codes>; 4],
    mcus: usize,
    interval: usize,
}

impl<'a> Scan<'a> {
    /// A file of one scan of Huffman codes, baseline or extended.
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut scan = Self {
            bytes,
            reader: Reader::default(),
            limit: BLOCK.min(bytes.len()),
            blocks: Vec::new(),
            first: Default::default(),
            others: Default::default(),
            mcus: 0,
            interval: 0,
        };
        let (mut components, mut size) = (Vec::new(), (0, 0));
        for (kind, body) in segments(bytes) {
            match kind {
                0xc0 | 0xc1 => {
                    let two = |at: usize| Some(usize::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])));
                    size = (two(3)?, two(1)?);
                    components = body
                        .get(6..)?
                        .as_chunks::<3>()
                        .0
                        .iter()
                        .map(|[id, hv, _]| (*id, usize::from(hv >> 4), usize::from(hv & 15)))
                        .collect();
                }
                0xc2..=0xc3 | 0xc5..=0xcb | 0xcd..=0xcf => return None,
                0xc4 => {
                    let mut rest = body;
                    while let Some((head, after)) = rest.split_at_checked(17) {
                        let count = head[1..].iter().map(|count| usize::from(*count)).sum();
                        let (values, after) = after.split_at_checked(count)?;
                        let tables = if head[0] & 16 == 0 { &mut scan.first } else { &mut scan.others };
                        *tables.get_mut(usize::from(head[0] & 15))? = Some(Codes::new(&head[1..], values));
                        rest = after;
                    }
                }
                0xdd => scan.interval = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])),
                0xda => {
                    scan.start(body, &components, size)?;
                    scan.reader.at = body.as_ptr() as usize - bytes.as_ptr() as usize + body.len();
                    return Some(scan);
                }
                _ => {}
            }
        }
        None
    }

    /// Sets the blocks of a unit and the number of units.
    fn start(&mut self, body: &[u8], components: &[(u8, usize, usize)], (width, height): (usize, usize)) -> Option<()> {
        let count = usize::from(*body.first()?);
        if count != components.len() || components.iter().any(|(_, h, v)| !(1..=4).contains(h) || !(1..=4).contains(v))
        {
            return None;
        }
        let most = |of: fn(&(u8, usize, usize)) -> usize| components.iter().map(of).max();
        let (h, v) = (most(|c| c.1)?, most(|c| c.2)?);
        // A lone component has one block in a unit, whatever its sampling.
        let unit = if count == 1 { (8, 8) } else { (8 * h, 8 * v) };
        self.mcus = width.div_ceil(unit.0) * height.div_ceil(unit.1);
        for [id, tables] in body.get(1..1 + 2 * count)?.as_chunks::<2>().0 {
            let (_, h, v) = components.iter().find(|component| component.0 == *id)?;
            let tables = (usize::from(tables >> 4), usize::from(tables & 15));
            self.first.get(tables.0)?.as_ref()?;
            self.others.get(tables.1)?.as_ref()?;
            self.blocks.extend(std::iter::repeat_n(tables, if count == 1 { 1 } else { h * v }));
        }
        Some(())
    }

    /// Passes a unit.
    fn mcu(&mut self, index: usize) -> Result<(), Ended> {
        if self.interval > 0 && index > 0 && index.is_multiple_of(self.interval) {
            self.restart((index / self.interval - 1) % 8)?;
        }
        if self.reader.short {
            return Ok(());
        }
        let before = self.reader;
        let room = self.limit - self.reader.at.min(self.limit);
        if self.reader.marker.is_none() && room >= BLOCK_BYTES * self.blocks.len() {
            self.codes(true)?;
            if self.reader.marker.is_none() {
                return Ok(());
            }
            // The fast loop met a marker; the slow one does the unit again.
            self.reader = before;
        }
        self.codes(false)
    }

    fn codes(&mut self, fast: bool) -> Result<(), Ended> {
        for block in 0..self.blocks.len() {
            let (first, others) = self.blocks[block];
            let size = self.code(true, first, fast)?;
            self.number(u32::from(size), fast)?;
            let mut k = 1;
            while k < 64 {
                let value = self.code(false, others, fast)?;
                let (run, size) = (value >> 4, value & 15);
                if size > 0 {
                    k += usize::from(run);
                    self.number(u32::from(size), fast)?;
                } else if run != 15 {
                    break;
                } else {
                    k += 15;
                }
                k += 1;
            }
        }
        Ok(())
    }

    /// The next code's value; 0 for a code that no table has.
    fn code(&mut self, first: bool, table: usize, fast: bool) -> Result<u8, Ended> {
        if fast {
            self.fill_fast();
        } else if self.reader.left < 8 {
            self.fill(0)?;
        }
        let tables = if first { &self.first } else { &self.others };
        let end = tables[table].as_ref().ok_or(Ended)?.end;
        // Codes up to 8 bits are looked up at once where 8 bits are there; of longer ones, bits are passed one by one.
        let mut length = match fast || self.reader.left >= 8 {
            true => (1..=8).find(|length| (self.peek(*length) as u32) < end[*length as usize]).unwrap_or(9),
            false => 1,
        };
        let mut code = self.take(length, fast)?;
        while length <= 16 && code >= end[length as usize] {
            code = code << 1 | self.take(1, fast)?;
            length += 1;
        }
        let tables = if first { &self.first } else { &self.others };
        let codes = tables[table].as_ref().filter(|_| length <= 16);
        let value = codes.and_then(|codes| codes.values.get((i64::from(code) + codes.shift[length as usize]) as usize));
        Ok(value.copied().unwrap_or(0))
    }

    fn peek(&self, count: u32) -> u64 {
        let Reader { bits, left, .. } = self.reader;
        if left >= count {
            bits >> (left - count) & ((1 << count) - 1)
        } else {
            bits << (count - left) & ((1 << count) - 1)
        }
    }

    /// Passes bits of a code.
    fn take(&mut self, count: u32, fast: bool) -> Result<u32, Ended> {
        if !fast && self.reader.left < count {
            self.fill(count)?;
        }
        let bits = self.peek(count) as u32;
        self.reader.left = self.reader.left.saturating_sub(count);
        Ok(bits)
    }

    /// Passes the bits of a number.
    fn number(&mut self, count: u32, fast: bool) -> Result<(), Ended> {
        if count == 0 {
            return Ok(());
        }
        if fast {
            self.fill_fast();
        }
        self.take(count, fast).map(drop)
    }

    /// Six bytes at once, where 16 bits or less are left.
    fn fill_fast(&mut self) {
        if self.reader.left > 16 {
            return;
        }
        for _ in 0..6 {
            let byte = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
            let (value, next) = (byte(self.reader.at), byte(self.reader.at + 1));
            self.reader.at += 1;
            if value == 0xff {
                self.reader.at += 1;
                if next != 0 {
                    self.reader.marker = Some(next);
                    self.reader.at -= 2;
                }
            }
            self.push(value);
        }
    }

    fn push(&mut self, byte: u8) {
        self.reader.bits = self.reader.bits << 8 | u64::from(byte);
        self.reader.left += 8;
    }

    fn next(&mut self) -> Result<u8, Ended> {
        if self.reader.at >= self.limit {
            return Err(Ended);
        }
        self.reader.at += 1;
        Ok(self.bytes[self.reader.at - 1])
    }

    /// Byte by byte up to 57 bits; zeros behind a marker.
    fn fill(&mut self, needed: u32) -> Result<(), Ended> {
        while self.reader.marker.is_none() && self.reader.left < 57 {
            let mut byte = self.next()?;
            if byte == 0xff {
                while byte == 0xff {
                    byte = self.next()?;
                }
                if byte != 0 {
                    self.reader.marker = Some(byte);
                    break;
                }
                byte = 0xff;
            }
            self.push(byte);
        }
        if self.reader.left < needed {
            self.reader.short = true;
            self.reader.bits <<= 57 - self.reader.left;
            self.reader.left = 57;
        }
        Ok(())
    }

    fn next_marker(&mut self) -> Result<u8, Ended> {
        loop {
            while self.next()? != 0xff {}
            let mut byte = 0xff;
            while byte == 0xff {
                byte = self.next()?;
            }
            if byte != 0 {
                return Ok(byte);
            }
        }
    }

    /// Passes the restart marker of a number, or what stands for it (`jpeg_resync_to_restart`).
    fn restart(&mut self, number: usize) -> Result<(), Ended> {
        self.reader.left = 0;
        let expected = 0xd0 + number as u8;
        let mut marker = match self.reader.marker {
            Some(marker) => marker,
            None => self.next_marker()?,
        };
        let near = |by: u8| 0xd0 + (number as u8 + by) % 8;
        self.reader.marker = loop {
            if marker == expected {
                break None;
            }
            let skip = marker < 0xc0 || marker == near(7) || marker == near(6);
            let stay = !(0xd0..=0xd7).contains(&marker) || marker == near(1) || marker == near(2);
            if skip {
                marker = self.next_marker()?;
            } else {
                break stay.then_some(marker);
            }
        };
        if self.reader.marker.is_none() {
            self.reader.short = false;
        }
        Ok(())
    }
}
