//! Tests over whole pictures: texts do not overprint, nothing leaves the frame, the XML is well formed.

use super::*;

type Point = (f64, f64);

/// The corners of each text of a picture by an estimate of its width, and what it says.
fn texts(picture: &str) -> Vec<([Point; 4], String)> {
    let attribute = |tag: &str, name: &str| -> Option<String> {
        let rest = tag.split(&format!(" {name}=\"")).nth(1)?;
        Some(rest.split('"').next()?.to_string())
    };
    let number = |tag: &str, name: &str| attribute(tag, name).and_then(|v| v.parse::<f64>().ok()).expect(name);
    let mut all = Vec::new();
    for element in picture.split("<text").skip(1) {
        let (tag, rest) = element.split_once('>').expect("an end of the tag");
        let words = rest.split("</text>").next().expect("an end of the text");
        let plain = words
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'");
        let (x, y, size) = (number(tag, "x"), number(tag, "y"), number(tag, "font-size"));
        // Bold letters are wider.
        let width = text::width(&plain, size) * if tag.contains("font-weight") { 1.1 } else { 1.0 };
        let left = match attribute(tag, "text-anchor").as_deref() {
            Some("middle") => x - 0.5 * width,
            Some("end") => x - width,
            _ => x,
        };
        let turn = attribute(tag, "transform").map_or(0.0, |t| {
            let degrees = t.trim_start_matches("rotate(").split(' ').next().expect("degrees");
            degrees.parse::<f64>().expect("degrees").to_radians()
        });
        let corner = |cx: f64, cy: f64| {
            let (dx, dy) = (cx - x, cy - y);
            (x + dx * turn.cos() - dy * turn.sin(), y + dx * turn.sin() + dy * turn.cos())
        };
        let (top, bottom) = (y - 0.75 * size, y + 0.2 * size);
        let corners =
            [corner(left, top), corner(left + width, top), corner(left + width, bottom), corner(left, bottom)];
        all.push((corners, plain));
    }
    all
}

/// Whether two rectangles meet: no side of either separates them.
fn meet(a: &[Point; 4], b: &[Point; 4]) -> bool {
    let separates = |side: (Point, Point)| {
        let normal = (side.1.1 - side.0.1, side.0.0 - side.1.0);
        let along = |shape: &[Point; 4]| {
            let all = shape.iter().map(|p| p.0 * normal.0 + p.1 * normal.1);
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
        };
        let ((low_a, high_a), (low_b, high_b)) = (along(a), along(b));
        high_a <= low_b || high_b <= low_a
    };
    !(0..4).any(|i| separates((a[i], a[(i + 1) % 4])) || separates((b[i], b[(i + 1) % 4])))
}

/// What is wrong with a picture.
fn problems(picture: &str) -> Vec<String> {
    let all = texts(picture);
    let size: Vec<f64> = picture
        .split("viewBox=\"0 0 ")
        .nth(1)
        .and_then(|r| r.split('"').next())
        .expect("a size")
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let mut found = Vec::new();
    for (i, (a, words)) in all.iter().enumerate() {
        if a.iter().any(|p| p.0 < 0.0 || p.1 < 0.0 || p.0 > size[0] || p.1 > size[1]) {
            found.push(format!("{words:?} leaves the picture: {a:?} of {size:?}"));
        }
        for (b, other) in &all[..i] {
            if meet(a, b) {
                found.push(format!("{words:?} overprints {other:?}: {a:?} {b:?}"));
            }
        }
    }
    if picture.split("<style>").next().is_some_and(|head| head.contains("NaN ")) || picture.contains("=\"NaN") {
        found.push("a position is not a number".into());
    }
    found
}

const NAMES: [&str; 6] =
    ["CLIP ResNet", "NF-ResNet", "BEiT, fine-tuned on labels", "a < b & \"c\"", "x", "no image at all"];

/// Every kind of chart at both widths, with few and many, long and short, good and bad.
fn pictures() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let title = "Loss of a caption's token while training, the mean over all of the seeds, which is long";
    for width in [NARROW, WIDE] {
        let frame = Frame { title, x: "optimiser steps", y: "loss in nats per token", width };
        for count in [0, 1, 3, 6] {
            for scale in [1e-7, 0.013, 1.0, 47.0, 123_456.0, 7e12, f64::NAN] {
                let interval =
                    |n: usize| Interval { value: scale * (n as f64 + 0.3), low: scale * n as f64, high: scale * 8.1 };
                let key = |n: usize| Key { name: NAMES[n], colour: Colour::ALL[n] };
                let keys: Vec<Key> = (0..count.min(4)).map(key).collect();
                let curve = |n: usize| Curve {
                    key: key(n),
                    line: [Line::Faint, Line::Full, Line::Dashed, Line::Dots][n % 4],
                    points: (0..40).map(|s| (f64::from(s) * 777.0 * (n + 1) as f64, scale * f64::from(s))).collect(),
                };
                let case = format!("{count} of {scale} at {width}");
                let drawn: Vec<Curve> = (0..count).map(curve).collect();
                all.push((format!("curves, {case}"), curves(&frame, &drawn)));
                let groups: Vec<Group> = (0..count)
                    .map(|n| Group { name: NAMES[n], bars: (0..keys.len()).map(|k| Some(interval(n + k))).collect() })
                    .collect();
                all.push((format!("bars, {case}"), bars(&frame, &keys, &groups)));
                for many in [1, keys.len()] {
                    let rows: Vec<Row> = (0..count)
                        .map(|n| Row { name: NAMES[n], intervals: (0..many).map(|k| (k, interval(n + k))).collect() })
                        .collect();
                    all.push((format!("forest of {many}, {case}"), forest(&frame, &keys, &rows, Some(0.0))));
                }
            }
        }
    }
    all
}

#[test]
fn nothing_overprints_or_leaves_the_picture() {
    for (case, picture) in pictures() {
        let found = problems(&picture);
        assert!(found.is_empty(), "{case}:\n{}\n{picture}", found.join("\n"));
    }
}

#[test]
fn overprints_are_seen() {
    let at = |x: i32, turn: &str| {
        format!(
            "<svg viewBox=\"0 0 99 99\"><text x=\"9\" y=\"20\" font-size=\"10\">word</text><text x=\"{x}\" y=\"22\" font-size=\"10\"{turn}>word</text>"
        )
    };
    assert_eq!(problems(&at(20, "")).len(), 1);
    assert_eq!(problems(&at(50, "")).len(), 0);
    assert_eq!(problems(&at(80, ""))[0].split(' ').next(), Some("\"word\""));
    assert_eq!(problems(&at(44, " transform=\"rotate(-35 44 22)\"")).len(), 0);
}

#[test]
fn pictures_are_xml_in_words_too() {
    for (case, picture) in pictures() {
        let mut open = Vec::new();
        for part in picture.split('<').skip(1) {
            let (tag, rest) = part.split_once('>').expect("an end of the tag");
            assert!(
                !rest.contains('>') && !rest.replace("&amp;", "").replace("&lt;", "").contains("& "),
                "{case}: {part}"
            );
            assert_eq!(tag.matches('"').count() % 2, 0, "{case}: {tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{case}"),
                None if tag.ends_with('/') => {}
                None => open.extend(tag.split(' ').next()),
            }
        }
        assert!(open.is_empty(), "{case}: {open:?}");
        assert!(picture.contains("<title>Loss of a caption&#39;s") && picture.contains("<desc>"), "{case}");
        assert!(picture.contains("prefers-color-scheme:dark") && !picture.contains("a < b"), "{case}");
    }
    assert!(pictures() == pictures(), "the same numbers give other bytes");
}

#[test]
fn the_first_colours_stand_out_on_both_grounds() {
    let style = curves(&Frame { title: "", x: "", y: "", width: WIDE }, &[]);
    let style = style.split("<style>").nth(1).and_then(|s| s.split("</style>").next()).expect("a style").to_string();
    let (light, dark) = style.split_once("@media").expect("two themes");
    let colour = |class: &str| -> [f64; 2] {
        let find = |text: &str| {
            let hex = text.split(&format!(".{class}{{fill:#")).nth(1)?.split('}').next()?.to_string();
            let hex: String = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex };
            let channel = |at: usize| {
                let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("a colour")) / 255.0;
                if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            Some(0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4))
        };
        let light = find(light).expect("a colour");
        [light, find(dark).unwrap_or(light)]
    };
    let ground = colour("bg");
    for class in ["f0", "f1", "f2", "f3", "f6", "f7", "quiet"] {
        for (ground, ink) in ground.into_iter().zip(colour(class)) {
            let (bright, dim) = (ground.max(ink) + 0.05, ground.min(ink) + 0.05);
            // WCAG 2.2, 1.4.11: 3 to 1 for what is no text, 4.5 for text.
            let least = if class == "quiet" { 4.5 } else { 3.0 };
            assert!(bright / dim >= least, "{class}: {:.2}", bright / dim);
        }
    }
}
