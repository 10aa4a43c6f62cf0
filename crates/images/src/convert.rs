//! Pillow's conversions of a pixel to RGB, with its roundings.

/// Ink to light.
pub(super) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = u32::from(255 - k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * light + 128;
        // The rounded 255th of the product is at most `light`.
        (light - (((product >> 8) + product) >> 8)) as u8
    })
}

/// Luma and chromas to RGB: tables with 6 bits after the point.
pub(super) fn ycbcr_to_rgb([y, blue, red]: [u8; 3]) -> [u8; 3] {
    let table = |factor: f64, chroma: u8| (factor * f64::from(i32::from(chroma) - 128) * 64.0 + 0.5) as i32;
    let y = i32::from(y);
    let g = (table(-0.34414, blue) + table(-0.71414, red)) >> 6;
    [y + (table(1.402, red) >> 6), y + g, y + (table(1.772, blue) >> 6)].map(|value| value.clamp(0, 255) as u8)
}

/// Takes alpha out of a colour that was multiplied with it.
pub(super) fn divide(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    colour.map(|value| match alpha {
        0 => 0,
        _ => (255 * u32::from(value) / u32::from(alpha)).min(255) as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_becomes_light() {
        // Pillow 13: Image.new("CMYK", (1, 1), ink).convert("RGB").
        for (ink, light) in [
            ([0, 0, 0, 0], [255, 255, 255]),
            ([255, 0, 0, 0], [0, 255, 255]),
            ([12, 200, 99, 50], [195, 44, 125]),
            ([7, 7, 7, 255], [0, 0, 0]),
        ] {
            assert_eq!(cmyk_to_rgb(ink), light);
        }
    }

    #[test]
    fn alpha_is_taken_out() {
        let divided = |value, alpha| divide([value; 3], alpha)[0];
        assert_eq!([divided(64, 128), divided(9, 0), divided(200, 100), divided(7, 255)], [127, 0, 255, 7]);
    }
}
