//! Interleaved prompts: texts and `<image>` marks in any order.

use anyhow::{Result, bail};

/// What stands for an image in a prompt.
pub const IMAGE_MARK: &str = "<image>";

/// One piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// The image of that index, in the order given.
    Image(usize),
    /// Text, tokenised by itself.
    Text(String),
}

/// A prompt in the order that the decoder sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The pieces; no text is empty.
    pub segments: Vec<Segment>,
}

impl Prompt {
    /// Splits `text` at its marks, mark i being image i.
    ///
    /// # Errors
    /// Another number of marks than `images`; a prompt with nothing in it.
    pub fn parse(text: &str, images: usize) -> Result<Self> {
        let marks = text.matches(IMAGE_MARK).count();
        if marks != images {
            bail!("the prompt {text:?} has {marks} {IMAGE_MARK} marks for {images} images; the numbers must be equal")
        }
        let mut segments = Vec::new();
        for (index, piece) in text.split(IMAGE_MARK).enumerate() {
            if index > 0 {
                segments.push(Segment::Image(index - 1));
            }
            if !piece.is_empty() {
                segments.push(Segment::Text(piece.to_string()));
            }
        }
        if segments.is_empty() {
            bail!("the prompt is empty and there is no image; give a text, or an image and its {IMAGE_MARK} mark")
        }
        Ok(Self { segments })
    }

    /// The text that [`Self::parse`] reads as the prompt of a caption.
    pub fn caption_text(text: &str) -> String {
        if text.contains(IMAGE_MARK) { text.to_string() } else { format!("{IMAGE_MARK}{text}") }
    }

    /// The prompt of a caption: the image, then the text; a text with one mark of its own says where the image goes.
    ///
    /// # Errors
    /// More than one mark.
    pub fn caption(text: &str) -> Result<Self> {
        Self::parse(&Self::caption_text(text), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_split_the_text() {
        let check = |text: &str, images: usize, expected: &[Segment]| {
            assert_eq!(Prompt::parse(text, images).unwrap().segments, expected, "{text:?}");
        };
        let t = |s: &str| Segment::Text(s.to_string());
        check("<image>A picture of", 1, &[Segment::Image(0), t("A picture of")]);
        check("a<image>b <image>", 2, &[t("a"), Segment::Image(0), t("b "), Segment::Image(1)]);
        check("<image><image>", 2, &[Segment::Image(0), Segment::Image(1)]);
        check("no image", 0, &[t("no image")]);
        assert_eq!(Prompt::caption("x").unwrap(), Prompt::parse("<image>x", 1).unwrap());
        assert_eq!(Prompt::caption("x <image>y").unwrap(), Prompt::parse("x <image>y", 1).unwrap());
        assert_eq!(Prompt::caption("").unwrap().segments, [Segment::Image(0)]);
    }

    #[test]
    fn another_number_of_marks_is_refused() {
        let message = Prompt::parse("<image>Q: <image>", 1).unwrap_err().to_string();
        assert_eq!(
            message,
            "the prompt \"<image>Q: <image>\" has 2 <image> marks for 1 images; the numbers must be equal"
        );
        assert!(Prompt::parse("", 0).unwrap_err().to_string().contains("the prompt is empty"));
        assert!(Prompt::caption("<image> <image>").is_err());
    }
}
