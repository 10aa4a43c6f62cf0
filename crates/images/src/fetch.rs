//! Fetching an encoded image from an `http://` or `https://` address; needs the feature `hub`.

use super::{ImageError, decode::Limits};

/// The bytes at an address, following redirects, within the limits' size and time.
///
/// # Errors
/// An address that is not `http(s)`, does not answer in time, answers with an error, or sends too much; always, in a build without the feature `hub`.
#[cfg(feature = "hub")]
pub fn fetch(url: &str, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let fail = |reason: String| ImageError::Fetch { url: url.to_owned(), reason };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(fail("an address begins with http:// or https://".to_owned()));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(limits.timeout))
        .user_agent(concat!("limber/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let explain = |error: ureq::Error| match error {
        ureq::Error::BodyExceedsLimit(_) => {
            ImageError::TooManyBytes { bytes: limits.max_bytes, limit: limits.max_bytes }
        }
        other => fail(other.to_string()),
    };
    let mut response = agent.get(url).call().map_err(explain)?;
    // One byte more is let in, so that an image of exactly the limit passes.
    let body = response.body_mut().with_config().limit(limits.max_bytes.saturating_add(1));
    let bytes = body.read_to_vec().map_err(explain)?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len() as u64, limit: limits.max_bytes });
    }
    Ok(bytes)
}

/// The bytes at an address; this build cannot fetch, so always an error.
///
/// # Errors
/// Always.
#[cfg(not(feature = "hub"))]
pub fn fetch(url: &str, _limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let reason = "this build has no network; build with `--features hub`, or give a file".to_owned();
    Err(ImageError::Fetch { url: url.to_owned(), reason })
}
