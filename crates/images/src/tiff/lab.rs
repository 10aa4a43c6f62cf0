//! Lab to RGB as littlecms converts it for Pillow: from Lab to XYZ and sRGB at the nodes of a grid, between which it goes
//! along the edges of tetrahedra in 16 bits.
//!
//! Source followed: littlecms 2.19, `OptimizeByResampling` of `cmsopt.c` and `TetrahedralInterp16` of `cmsintrp.c`.

/// Nodes of a side of the grid.
const SIDE: usize = 33;
/// The largest XYZ that is coded.
const MOST: f64 = 1.0 + 32_767.0 / 32_768.0;
/// D50, which Lab is relative to.
const WHITE: [f64; 3] = [0.9642, 1.0, 0.8249];
/// XYZ over [`MOST`], relative to D50, to the light of sRGB.
const TO_LIGHT: [[f64; 3]; 3] = [
    [6.268277080696409, -3.2343685646958, -0.9813731532183342],
    [-1.957467139347447, 3.8322017178972487, 0.06686577801362024],
    [0.14392565943970465, -0.4579807585679833, 2.811464565593521],
];

/// The grid's nodes, in 16 bits: L changes slowest, b fastest.
#[derive(Debug, Clone)]
pub(super) struct LabGrid(Vec<[i64; 3]>);

impl LabGrid {
    pub fn new() -> Self {
        let value = |node: usize| (node as f64 * 65_535.0 / (SIDE - 1) as f64 + 0.5).floor() / 65_535.0;
        let nodes = (0..SIDE * SIDE * SIDE).map(|i| [i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE].map(value));
        Self(nodes.map(node).collect())
    }

    /// The colour of a pixel: L of 0 to 255, and a and b with their signs.
    pub fn rgb(&self, [l, a, b]: [u8; 3]) -> [u8; 3] {
        // Fixed point with 16 bits after the point: the node below, and how far it is to the next.
        let fixed = [l, a ^ 0x80, b ^ 0x80].map(|byte| {
            let at = i64::from(byte) * 257 * (SIDE as i64 - 1);
            at + (at + 0x7fff) / 0xffff
        });
        let mut index = fixed.iter().fold(0, |index, at| index * SIDE + (at >> 16) as usize);
        let mut axes = [0, 1, 2].map(|axis| (fixed[axis] & 0xffff, [SIDE * SIDE, SIDE, 1][axis]));
        axes.sort_by_key(|(rest, _)| -rest);
        let start = self.0[index];
        let (mut before, mut sum) = (start, [0x8001; 3]);
        for (rest, step) in axes.into_iter().filter(|(rest, _)| *rest > 0) {
            index += step;
            let next = self.0[index];
            sum = [0, 1, 2].map(|c| sum[c] + (next[c] - before[c]) * rest);
            before = next;
        }
        [0, 1, 2].map(|c| {
            let value = start[c] + ((sum[c] + (sum[c] >> 16)) >> 16);
            ((value * 65_281 + 0x80_0000) >> 24) as u8
        })
    }
}

/// The colour of a node, of values from 0 to 1, with littlecms's roundings to f32 between its stages.
fn node(lab: [f64; 3]) -> [i64; 3] {
    let single = |value: f64| f64::from(value as f32);
    let [l, a, b] = lab.map(single);
    let y = (l * 100.0 + 16.0) / 116.0;
    let relative = [y + 0.002 * (a * 255.0 - 128.0), y, y - 0.005 * (b * 255.0 - 128.0)];
    let cubed = |t: f64| if t <= 24.0 / 116.0 { 108.0 / 841.0 * (t - 16.0 / 116.0) } else { t * t * t };
    let xyz = [0, 1, 2].map(|i| single(cubed(relative[i]) * WHITE[i] / MOST));
    TO_LIGHT.map(|row| {
        let light = single(row.iter().zip(xyz).map(|(factor, value)| factor * value).sum());
        // The inverse of sRGB's curve: a straight piece, then a power.
        let (gain, shift): (f64, f64) = (1.0 / 1.055, 0.055 / 1.055);
        let value = match light >= (gain * 0.04045 + shift).powf(2.4) {
            true => (light.powf(1.0 / 2.4) - shift) / gain,
            false => light / (1.0 / 12.92),
        };
        (single(value) * 65_535.0 + 0.5).floor().clamp(0.0, 65_535.0) as i64
    })
}
