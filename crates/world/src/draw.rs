//! Draws a scene, anti-aliased, at any side from [`MIN_SIDE`] up.

use image::RgbImage;
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Transform};

use super::scene::{Background, Colour, Ground, Lots, Object, Scene, Shape};

/// Smallest side at which small objects can still be told apart.
pub const MIN_SIDE: u32 = 64;

/// The picture of a scene, `[side, side]` pixels, RGB.
///
/// A side under [`MIN_SIDE`] is raised to it; [`super::write_dataset`] refuses it.
pub fn draw(scene: &Scene, side: u32) -> RgbImage {
    let side = side.max(MIN_SIDE);
    let ground = Canvas::new(&scene.background);
    let mut picture = RgbImage::from_fn(side, side, |x, y| {
        let at = |v: u32| (v as f32 + 0.5) / side as f32;
        image::Rgb(ground.colour(at(x), at(y)))
    });
    // The objects are drawn on a transparent layer and laid over the background.
    let mut layer = Pixmap::new(side, side).expect("a side of at least 64 makes a pixmap");
    for object in &scene.objects {
        draw_object(&mut layer, object, side as f32);
    }
    for (pixel, over) in picture.pixels_mut().zip(layer.pixels()) {
        let rest = 255 - u32::from(over.alpha());
        let parts = [over.red(), over.green(), over.blue()];
        for (channel, part) in pixel.0.iter_mut().zip(parts) {
            let mixed = u32::from(part) + (u32::from(*channel) * rest + 127) / 255;
            *channel = mixed.min(255) as u8;
        }
    }
    picture
}

/// The middle of a colour class, RGB.
fn rgb(colour: Colour) -> [u8; 3] {
    match colour {
        Colour::Red => [215, 35, 35],
        Colour::Orange => [243, 138, 20],
        Colour::Yellow => [248, 226, 35],
        Colour::Green => [38, 150, 55],
        Colour::Blue => [35, 75, 215],
        Colour::Purple => [138, 45, 175],
        Colour::White => [243, 243, 243],
        Colour::Black => [16, 16, 16],
    }
}

fn draw_object(layer: &mut Pixmap, object: &Object, side: f32) {
    let base = rgb(object.colour);
    let [r, g, b] = [0, 1, 2].map(|i| base[i].saturating_add_signed(object.tint[i]));
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, 255));
    paint.anti_alias = true;
    let scale = object.radius * side;
    let transform = Transform::from_scale(scale, scale)
        .post_rotate(object.turn.to_degrees())
        .post_translate(object.x * side, object.y * side);
    if let Some(path) = outline(object.shape) {
        // Even-odd leaves the hole of a ring open.
        layer.fill_path(&path, &paint, FillRule::EvenOdd, transform, None);
    }
}

/// The outline of a shape inside the unit circle.
fn outline(shape: Shape) -> Option<Path> {
    let mut path = PathBuilder::new();
    match shape {
        Shape::Circle => path.push_circle(0.0, 0.0, 0.92),
        Shape::Ring => {
            path.push_circle(0.0, 0.0, 0.97);
            path.push_circle(0.0, 0.0, 0.52);
        }
        Shape::Square => polygon(&mut path, &[(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]),
        Shape::Triangle => polygon(&mut path, &[(0.0, -0.98), (0.86, 0.5), (-0.86, 0.5)]),
        Shape::Star => {
            let points: Vec<(f32, f32)> = (0..10)
                .map(|i| {
                    let angle = (i as f32 * 36.0 - 90.0).to_radians();
                    let reach = if i % 2 == 0 { 0.99 } else { 0.42 };
                    (reach * angle.cos(), reach * angle.sin())
                })
                .collect();
            polygon(&mut path, &points);
        }
        Shape::Cross => {
            let (a, b) = (0.28, 0.93);
            polygon(
                &mut path,
                &[
                    (-a, -b),
                    (a, -b),
                    (a, -a),
                    (b, -a),
                    (b, a),
                    (a, a),
                    (a, b),
                    (-a, b),
                    (-a, a),
                    (-b, a),
                    (-b, -a),
                    (-a, -a),
                ],
            );
        }
        Shape::Heart => {
            path.move_to(0.0, 0.95);
            path.cubic_to(-0.55, 0.45, -0.98, 0.15, -0.92, -0.32);
            path.cubic_to(-0.85, -0.85, -0.18, -0.95, 0.0, -0.38);
            path.cubic_to(0.18, -0.95, 0.85, -0.85, 0.92, -0.32);
            path.cubic_to(0.98, 0.15, 0.55, 0.45, 0.0, 0.95);
            path.close();
        }
    }
    path.finish()
}

fn polygon(path: &mut PathBuilder, points: &[(f32, f32)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    path.close();
}

/// A background made ready to be asked for its colour anywhere.
struct Canvas<'a> {
    background: &'a Background,
    noise: Vec<f32>,
}

/// Points of the noise's lattice along one side; the pattern lies between them.
const LATTICE: usize = 12;

impl<'a> Canvas<'a> {
    fn new(background: &'a Background) -> Self {
        let mut lots = Lots::new(u64::from(background.salt), 0, 2);
        let noise = (0..LATTICE * LATTICE).map(|_| lots.between(0.0, 1.0)).collect();
        Self { background, noise }
    }

    fn colour(&self, x: f32, y: f32) -> [u8; 3] {
        let share = self.share(x, y);
        let Background { base, other, .. } = self.background;
        [0, 1, 2].map(|i| {
            let (a, b) = (f32::from(base[i]), f32::from(other[i]));
            (a + (b - a) * share).round() as u8
        })
    }

    /// How much of the second colour a point has, from 0 to 1.
    fn share(&self, x: f32, y: f32) -> f32 {
        let Background { ground, turn, periods, .. } = self.background;
        let (sin, cos) = turn.sin_cos();
        let (along, across) = (x * cos + y * sin, y * cos - x * sin);
        match ground {
            Ground::Plain => 0.0,
            Ground::Gradient => 0.5 + ((x - 0.5) * cos + (y - 0.5) * sin) / std::f32::consts::SQRT_2,
            Ground::Stripes => 0.5 + 0.5 * (along * periods * std::f32::consts::TAU).sin(),
            Ground::Checks => {
                let odd = (along * periods).floor() + (across * periods).floor();
                odd.rem_euclid(2.0)
            }
            Ground::Noise => {
                let cell = |v: f32| {
                    let v = v * (LATTICE - 1) as f32;
                    let cell = (v as usize).min(LATTICE - 2);
                    (cell, v - cell as f32)
                };
                let ((cx, fx), (cy, fy)) = (cell(x), cell(y));
                let at = |i: usize, j: usize| self.noise[(cy + j) * LATTICE + cx + i];
                let top = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
                let bottom = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
                top * (1.0 - fy) + bottom * fy
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Options, scene};
    use super::*;

    #[test]
    fn the_middle_of_an_object_has_its_colour() {
        for index in 0..200 {
            let scene = scene(2, index, &Options::default());
            let picture = draw(&scene, 96);
            for object in scene.objects.iter().filter(|o| o.shape != Shape::Ring) {
                let pixel = picture.get_pixel((object.x * 96.0) as u32, (object.y * 96.0) as u32);
                for i in 0..3 {
                    let far = i16::from(pixel[i]) - i16::from(rgb(object.colour)[i]);
                    assert!(far.abs() <= 13, "{object:?} {pixel:?}");
                }
            }
        }
    }

    #[test]
    fn a_picture_is_repeatable_and_square_and_never_too_small() {
        let scene = scene(7, 3, &Options::default());
        assert_eq!(draw(&scene, 80), draw(&scene, 80));
        assert_eq!(draw(&scene, 80).dimensions(), (80, 80));
        assert_eq!(draw(&scene, 8).dimensions(), (MIN_SIDE, MIN_SIDE));
    }

    #[test]
    fn backgrounds_stay_muted() {
        for index in 0..300 {
            let scene = scene(4, index, &Options::default());
            let canvas = Canvas::new(&scene.background);
            for step in 0..64 {
                let c = canvas.colour((step % 8) as f32 / 8.0, (step / 8) as f32 / 8.0);
                let (low, high) = (c.iter().min(), c.iter().max());
                let (low, high) = (low.copied().unwrap_or(0), high.copied().unwrap_or(255));
                assert!(low >= 90 && high <= 215 && high - low <= 48, "{c:?}");
            }
        }
    }
}
