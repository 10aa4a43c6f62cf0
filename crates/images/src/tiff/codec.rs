//! The codecs of a strip or tile, and the predictors behind them.

use std::borrow::Cow;
use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::StreamingDecoder;
use weezl::BitOrder;
use weezl::decode::Configuration;

use super::super::{ImageError, jpeg};
use super::directory::tag;
use super::kind::Meaning;
use super::{Page, broken, ccitt, truncated, unsupported};

pub(super) const OLD_JPEG: u32 = 6;
pub(super) const JPEG: u32 = 7;
const LZW: u32 = 5;
const DEFLATE: u32 = 8;
const OLD_DEFLATE: u32 = 32_946;
const PACK_BITS: u32 = 32_773;
const ZSTD: u32 = 50_000;

/// The samples of a strip or tile of `width` pixels in `rows` rows; samples of several bytes come with the low one first.
pub(super) fn decode(
    page: &Page,
    bytes: &[u8],
    width: usize,
    rows: usize,
    samples: usize,
) -> Result<Vec<u8>, ImageError> {
    let row = page.kind.row_bytes(width, samples);
    let fill = page.directory.one(tag::FILL_ORDER) == Some(2) && page.compression != JPEG;
    let bytes: Cow<[u8]> = if fill { bytes.iter().map(|b| b.reverse_bits()).collect() } else { bytes.into() };
    let mut out = vec![0; row.checked_mul(rows).ok_or_else(|| broken("strips over the address space"))?];
    let whole = match page.compression {
        LZW => lzw(&bytes, &mut out),
        DEFLATE | OLD_DEFLATE => inflate(&bytes, &mut out),
        PACK_BITS => pack_bits(&bytes, &mut out),
        ZSTD => StreamingDecoder::new(&*bytes).is_ok_and(|mut decoder| decoder.read_exact(&mut out).is_ok()),
        2..=4 if page.kind.depth == 1 && samples == 1 => {
            let options = page.directory.one(tag::T4_OPTIONS).unwrap_or(0);
            ccitt::decode(&bytes, page.compression, options, width, row, &mut out)
        }
        JPEG => return jpeg_strip(page, &bytes, width, rows, samples),
        other => {
            let name = match other {
                OLD_JPEG => "old JPEG",
                32_809 => "ThunderScan",
                34_676 | 34_677 => "SGI log",
                34_925 => "LZMA",
                50_001 => "WebP",
                2..=4 => "CCITT of more than one bit",
                _ => "unknown",
            };
            let read = "read are none, CCITT, LZW, JPEG, deflate, PackBits and zstd";
            return Err(unsupported(format!("compression {other} ({name}); {read}")));
        }
    };
    if !whole {
        return Err(truncated(page.bytes, format!("a strip or tile does not decode to its {} bytes", out.len())));
    }
    let wide = page.kind.depth / 8;
    if !page.little && matches!(page.kind.depth, 16 | 32) {
        out.chunks_exact_mut(wide).for_each(<[u8]>::reverse);
    }
    if matches!(page.compression, LZW | DEFLATE | OLD_DEFLATE | ZSTD) {
        predict(page, &mut out, row, samples)?;
    }
    Ok(out)
}

fn lzw(bytes: &[u8], out: &mut [u8]) -> bool {
    let mut decoder = Configuration::with_tiff_size_switch(BitOrder::Msb, 8).build();
    let (mut from, mut to) = (0, 0);
    while to < out.len() {
        let step = decoder.decode_bytes(&bytes[from..], &mut out[to..]);
        from += step.consumed_in;
        to += step.consumed_out;
        if step.status.is_err() || (step.consumed_in == 0 && step.consumed_out == 0) {
            break;
        }
        if matches!(step.status, Ok(weezl::LzwStatus::Done)) {
            break;
        }
    }
    to == out.len()
}

/// As zlib does, the checksum is compared where it is there; data that goes on past the pixels is left alone.
pub(in super::super) fn inflate(bytes: &[u8], out: &mut [u8]) -> bool {
    let mut state = Decompress::new(true);
    loop {
        let (from, to) = (state.total_in() as usize, state.total_out() as usize);
        match state.decompress(&bytes[from..], &mut out[to..], FlushDecompress::None) {
            Ok(Status::StreamEnd) => return state.total_out() as usize == out.len(),
            Ok(_) if state.total_out() as usize == out.len() => return true,
            Ok(_) if (from, to) != (state.total_in() as usize, state.total_out() as usize) => {}
            _ => return false,
        }
    }
}

fn pack_bits(bytes: &[u8], out: &mut [u8]) -> bool {
    let (mut from, mut to) = (0, 0);
    while to < out.len() {
        let Some(count) = bytes.get(from).map(|byte| *byte as i8) else { return false };
        from += 1;
        if count >= 0 {
            let length = (usize::from(count as u8) + 1).min(out.len() - to);
            let Some(run) = bytes.get(from..from + length) else { return false };
            out[to..to + length].copy_from_slice(run);
            (from, to) = (from + length, to + length);
        } else if count != i8::MIN {
            let length = (1 - i16::from(count)) as usize;
            let Some(value) = bytes.get(from) else { return false };
            let end = out.len().min(to + length);
            out[to..end].fill(*value);
            (from, to) = (from + 1, end);
        }
    }
    true
}

fn predict(page: &Page, out: &mut [u8], row: usize, samples: usize) -> Result<(), ImageError> {
    let predictor = page.directory.one(tag::PREDICTOR).unwrap_or(1);
    match (predictor, page.kind.depth) {
        (1, _) => {}
        (2, 8) => out.chunks_exact_mut(row).for_each(|row| {
            for i in samples..row.len() {
                row[i] = row[i].wrapping_add(row[i - samples]);
            }
        }),
        (2, 16) => out.chunks_exact_mut(row).for_each(|row| {
            let row = row.as_chunks_mut::<2>().0;
            for i in samples..row.len() {
                row[i] = u16::from_le_bytes(row[i]).wrapping_add(u16::from_le_bytes(row[i - samples])).to_le_bytes();
            }
        }),
        (2, 32) => out.chunks_exact_mut(row).for_each(|row| {
            let row = row.as_chunks_mut::<4>().0;
            for i in samples..row.len() {
                row[i] = u32::from_le_bytes(row[i]).wrapping_add(u32::from_le_bytes(row[i - samples])).to_le_bytes();
            }
        }),
        // Numbers with a point: all high bytes of a row first, each byte the difference to the one before.
        (3, 32) if page.kind.meaning == Meaning::Float => out.chunks_exact_mut(row).for_each(|row| {
            if !page.little {
                row.as_chunks_mut::<4>().0.iter_mut().for_each(|four| four.reverse());
            }
            for i in samples..row.len() {
                row[i] = row[i].wrapping_add(row[i - samples]);
            }
            let (planes, count) = (row.to_vec(), row.len() / 4);
            for (i, number) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *number = [3, 2, 1, 0].map(|plane| planes[plane * count + i]);
            }
        }),
        (other, depth) => return Err(unsupported(format!("predictor {other} of samples of {depth} bits"))),
    }
    Ok(())
}

/// A strip or tile that is a JPEG of its own but for the tables, which all share.
fn jpeg_strip(page: &Page, bytes: &[u8], width: usize, rows: usize, samples: usize) -> Result<Vec<u8>, ImageError> {
    let tables: Vec<u8> = page.directory.all(tag::JPEG_TABLES).iter().map(|byte| *byte as u8).collect();
    if page.kind.depth != 8 {
        return Err(unsupported(format!("JPEG samples of {} bits; read are 8", page.kind.depth)));
    }
    let image = jpeg::strip(&tables, bytes, samples, page.kind.meaning == Meaning::YCbCr)?;
    if image.width < width || image.height < rows {
        let size = (image.width, image.height);
        return Err(broken(format!("a JPEG of {size:?} pixels in a strip or tile of {:?}", (width, rows))));
    }
    let rows = image.data.chunks_exact(image.width * samples).take(rows);
    Ok(rows.flat_map(|row| &row[..width * samples]).copied().collect())
}
