//! PBM, PGM, PPM and PFM, as Pillow reads them.

use image::RgbImage;
use image::metadata::Orientation;

use super::convert::cmyk_to_rgb;
use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// What a pixel is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bit,
    Grey,
    Rgb,
    Rgba,
    Cmyk,
    Float,
}

/// Decodes a picture, in text or in bytes.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let mut at = 0;
    let length = bytes.iter().take(6).take_while(|byte| !is_space(**byte)).count();
    let magic = &bytes[..length];
    at += length + usize::from(length < 6);
    let (kind, text) = match magic {
        b"P1" => (Kind::Bit, true),
        b"P2" => (Kind::Grey, true),
        b"P3" => (Kind::Rgb, true),
        b"P4" => (Kind::Bit, false),
        b"P5" => (Kind::Grey, false),
        b"P6" => (Kind::Rgb, false),
        b"PyRGBA" => (Kind::Rgba, false),
        b"P0CMYK" | b"PyCMYK" => (Kind::Cmyk, false),
        b"Pf" => (Kind::Float, false),
        other => {
            return Err(broken(format!(
                "it begins with {:?}; read are P1 to P6 and Pf",
                other.escape_ascii().to_string()
            )));
        }
    };
    let number = |at: &mut usize, what: &str| {
        let token = token(bytes, at)?;
        token.parse::<u32>().map_err(|_| broken(format!("{what} {token:?}, a whole number expected")))
    };
    let (width, height) = (number(&mut at, "width")?, number(&mut at, "height")?);
    limits.check(Format::Ppm, width.into(), height.into())?;
    let area = width as usize * height as usize;
    let bands = match kind {
        Kind::Rgb => 3,
        Kind::Rgba | Kind::Cmyk => 4,
        _ => 1,
    };
    let most = match kind {
        Kind::Bit => 1,
        Kind::Float => {
            let scale = token(bytes, &mut at)?;
            match scale.parse::<f64>() {
                Ok(value) if value != 0.0 && value.is_finite() => i64::from(value < 0.0),
                _ => return Err(broken(format!("scale {scale:?}, a number other than 0 expected"))),
            }
        }
        _ => {
            let text = token(bytes, &mut at)?;
            match text.parse::<i64>() {
                Ok(most @ 1..=65_535) => most,
                _ => return Err(broken(format!("highest value {text:?}, 1 to 65535 expected"))),
            }
        }
    };
    let rest = bytes.get(at..).unwrap_or_default();
    let data: Vec<u8> = match (kind, text) {
        (Kind::Bit, true) => bits_of_text(rest, area)?,
        (Kind::Bit, false) => {
            let stride = (width as usize).div_ceil(8);
            let rows = due(bytes, rest, stride * height as usize)?.chunks_exact(stride);
            let bit = |row: &[u8], x: usize| if row[x / 8] << (x % 8) & 0x80 == 0 { 255 } else { 0 };
            rows.flat_map(|row| (0..width as usize).map(move |x| bit(row, x))).collect()
        }
        (Kind::Float, _) => {
            let floats = due(bytes, rest, area * 4)?.as_chunks::<4>().0;
            let rows = floats.chunks_exact(width as usize).rev().flatten();
            let little = most == 1;
            rows.map(|b| if little { f32::from_le_bytes(*b) } else { f32::from_be_bytes(*b) } as u8).collect()
        }
        (_, true) => {
            let values = values_of_text(rest, area * bands, most)?;
            values.into_iter().map(|value| scaled(value, most, kind)).collect()
        }
        (Kind::Grey, false) if most == 65_535 => {
            let samples = due(bytes, rest, area * 2)?.as_chunks().0.iter();
            samples.map(|b| u16::from_be_bytes(*b).min(255) as u8).collect()
        }
        (_, false) if most == 255 => due(bytes, rest, area * bands)?.to_vec(),
        (_, false) if most < 256 => {
            let samples = due(bytes, rest, area * bands)?.iter();
            samples.map(|value| scaled(i64::from(*value), most, kind)).collect()
        }
        (_, false) => {
            let samples = due(bytes, rest, area * bands * 2)?.as_chunks().0.iter();
            samples.map(|b| scaled(i64::from(u16::from_be_bytes(*b)), most, kind)).collect()
        }
    };
    let rgb = match kind {
        Kind::Rgb => data,
        Kind::Rgba => data.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect(),
        Kind::Cmyk => data.as_chunks().0.iter().flat_map(|ink| cmyk_to_rgb(*ink)).collect(),
        _ => data.iter().flat_map(|value| [*value; 3]).collect(),
    };
    let pixels = RgbImage::from_raw(width, height, rgb).ok_or_else(|| broken("fewer pixels than its header says"))?;
    Ok(Decoded { pixels, orientation: Orientation::NoTransforms })
}

/// A sample scaled to 0..255, halves to the even neighbour; grey of more than 255 levels is scaled to 0..65535 and clipped.
fn scaled(value: i64, most: i64, kind: Kind) -> u8 {
    let top = if kind == Kind::Grey && most > 255 { 65_535.0 } else { 255.0 };
    (value as f64 / most as f64 * top).round_ties_even().min(255.0) as u8
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r')
}

/// The next word of the header, at most ten letters; comments reach to the end of their line.
fn token(bytes: &[u8], at: &mut usize) -> Result<String, ImageError> {
    let mut token = String::new();
    while token.len() <= 10 {
        let Some(byte) = bytes.get(*at) else { break };
        *at += 1;
        match *byte {
            b'#' => {
                let line = bytes[*at..].iter().position(|b| matches!(b, b'\r' | b'\n'));
                *at = line.map_or(bytes.len(), |length| *at + length + 1);
            }
            byte if !is_space(byte) => token.push(char::from(byte)),
            _ if token.is_empty() => {}
            _ => break,
        }
    }
    match token.len() {
        0 => Err(cut(bytes)),
        1..=10 => Ok(token),
        _ => Err(broken(format!("{token:?} in its header is too long"))),
    }
}

fn without_comments(bytes: &[u8]) -> Vec<u8> {
    let mut comment = false;
    let kept = bytes.iter().filter(|byte| {
        let was = comment;
        comment = if comment { !matches!(byte, b'\r' | b'\n') } else { **byte == b'#' };
        !was && !comment
    });
    kept.copied().collect()
}

fn bits_of_text(rest: &[u8], area: usize) -> Result<Vec<u8>, ImageError> {
    let mut out = Vec::with_capacity(area.min(rest.len()));
    for byte in without_comments(rest).into_iter().filter(|byte| !is_space(*byte)) {
        out.push(match byte {
            b'0' => 255,
            b'1' => 0,
            other => return Err(broken(format!("{:?} among bits of 0 and 1", char::from(other)))),
        });
    }
    if out.len() < area {
        return Err(cut(rest));
    }
    out.truncate(area);
    Ok(out)
}

fn values_of_text(rest: &[u8], count: usize, most: i64) -> Result<Vec<i64>, ImageError> {
    let text = without_comments(rest);
    let words = text.split(|byte| is_space(*byte)).filter(|word| !word.is_empty());
    let parse = |word: &[u8]| {
        let value = std::str::from_utf8(word).ok().filter(|word| word.len() <= 10).and_then(|w| w.parse::<i64>().ok());
        let value = value.filter(|value| (0..=most).contains(value));
        value.ok_or_else(|| broken(format!("{:?} among values of 0 to {most}", word.escape_ascii().to_string())))
    };
    let values: Vec<i64> = words.take(count).map(parse).collect::<Result<_, _>>()?;
    if values.len() < count { Err(cut(rest)) } else { Ok(values) }
}

fn due<'a>(bytes: &[u8], rest: &'a [u8], count: usize) -> Result<&'a [u8], ImageError> {
    rest.get(..count).ok_or_else(|| cut(bytes))
}

fn broken(reason: impl Into<String>) -> ImageError {
    ImageError::Broken { format: Format::Ppm, reason: reason.into() }
}

fn cut(bytes: &[u8]) -> ImageError {
    let reason = "it ends within its header or its pixels".to_owned();
    ImageError::Truncated { format: Format::Ppm, bytes: bytes.len(), reason }
}
