//! What can be wrong with an image, in words that say what, which value, and what is allowed.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::format::READ;
use super::{Format, Window};

/// Why an image could not be read or resized.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image is empty: 0 bytes")]
    Empty,
    /// The first bytes belong to no format that is read.
    #[error("not a known image: it begins with the bytes {start:02x?}; {READ}")]
    Unknown {
        /// The first bytes, at most eight.
        start: Vec<u8>,
    },
    /// The first bytes belong to a format that is known, but not read.
    #[error("{name} is not read; {READ}")]
    NotRead {
        /// The format's name.
        name: &'static str,
    },
    /// The header asks for more pixels than are allowed.
    #[error("{format} image of {width} x {height} pixels is over the limit of {limit} pixels")]
    TooManyPixels {
        /// The image's format.
        format: Format,
        /// Width that the header claims.
        width: u64,
        /// Height that the header claims.
        height: u64,
        /// Most pixels allowed.
        limit: u64,
    },
    /// The header asks for a longer side than is allowed.
    #[error("{format} image of {width} x {height} pixels has a side over the limit of {limit} pixels")]
    SideTooLong {
        /// The image's format.
        format: Format,
        /// Width that the header claims.
        width: u64,
        /// Height that the header claims.
        height: u64,
        /// Longest side allowed.
        limit: u64,
    },
    /// The encoded image is larger than allowed.
    #[error("image of {bytes} bytes or more is over the limit of {limit} bytes")]
    TooManyBytes {
        /// Size of the encoded image, as far as it is known.
        bytes: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// The image ends before its last pixel.
    #[error("truncated {format} image of {bytes} bytes: {reason}")]
    Truncated {
        /// The image's format.
        format: Format,
        /// Size of the encoded image.
        bytes: usize,
        /// What the decoder was after.
        reason: String,
    },
    /// The image breaks its format's rules.
    #[error("broken {format} image: {reason}")]
    Broken {
        /// The image's format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// The image is well formed, but of a kind that is not read.
    #[error("{format} image of a kind that is not read: {reason}")]
    Unsupported {
        /// The image's format.
        format: Format,
        /// The kind, and what is read instead.
        reason: String,
    },
    /// A resize to or from nothing.
    #[error("cannot resize an image of {} x {} to {} x {} and keep {window:?}: sides must be at least 1 and the window inside", from.0, from.1, to.0, to.1)]
    Resize {
        /// Width and height before.
        from: (usize, usize),
        /// Width and height after.
        to: (usize, usize),
        /// The window to keep.
        window: Window,
    },
    /// The older order of passes would widen an image of many rows before it shortens it.
    #[error("resizing an image of {} x {} to {} x {} rows first needs {pixels} pixels in between, over the limit of {limit}; Pillow 13's order, without compat: original, does not", from.0, from.1, to.0, to.1)]
    Between {
        /// Width and height before.
        from: (usize, usize),
        /// Width and height after.
        to: (usize, usize),
        /// Pixels between the passes.
        pixels: u64,
        /// Most pixels allowed.
        limit: u64,
    },
    /// An address that gave no image.
    #[error("cannot fetch {url:?}: {reason}")]
    Fetch {
        /// The address.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("cannot read the image {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An image that cannot be decoded, and where it lies.
    #[error("{location:?}: {error}")]
    At {
        /// The file or address.
        location: String,
        /// What is wrong with the image there.
        error: Box<ImageError>,
    },
}

impl ImageError {
    /// Sorts a decoder's error into truncated or broken.
    pub(super) fn from_decoder(format: Format, bytes: usize, error: &(dyn Error + 'static)) -> Self {
        let reason = error.to_string();
        let eof = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        let causes = std::iter::successors(Some(error), |cause: &&(dyn Error + 'static)| (*cause).source());
        // Some decoders give the system's error as a source, others only its words.
        let ended = causes.into_iter().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(eof))
            || ["unexpected end", "unexpected eof", "fill whole buffer", "insufficientinput"]
                .iter()
                .any(|w| reason.to_lowercase().contains(w));
        match ended {
            true => Self::Truncated { format, bytes, reason },
            false => Self::Broken { format, reason },
        }
    }
}
