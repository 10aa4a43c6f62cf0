//! Addresses: their origin, where a redirect leads from them, and names quoted for them.

use ureq::http::Uri;

/// `scheme://host:port` in lower case, the port always there; what may share a secret with itself alone.
pub fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?.to_ascii_lowercase(), uri.host()?.to_ascii_lowercase());
    let port = uri.port_u16().or(match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })?;
    Some(format!("{scheme}://{host}:{port}"))
}

/// Whether both addresses have one origin.
pub fn same_origin(a: &str, b: &str) -> bool {
    matches!((origin(a), origin(b)), (Some(a), Some(b)) if a == b)
}

/// Whether the address is this machine's own.
pub fn is_loopback(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| Some(uri.host()?.trim_matches(['[', ']']).to_string()));
    host.is_some_and(|host| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Where `location`, in an answer of `base`, leads; None where that is no http(s) address.
pub fn join(base: &str, location: &str) -> Option<String> {
    let uri: Uri = base.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let joined = match location {
        "" => return None,
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ if location.contains("://") => location.to_string(),
        _ => {
            let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        }
    };
    matches!(joined.split_once("://"), Some(("http" | "https", _))).then_some(())?;
    origin(&joined).map(|_| joined)
}

/// An address without its query, which may be a signature that opens the file to anyone for a while.
pub fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// A name as it stands in an address; the characters in `keep` stay as they are.
pub fn quote(name: &str, keep: &str) -> String {
    let mut quoted = String::new();
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.as_bytes().contains(&byte);
        if plain {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_tell_hosts_ports_and_schemes_apart() {
        for (a, b, same) in [
            ("https://huggingface.co/a/b", "https://huggingface.co:443/c?d", true),
            ("https://HuggingFace.co/a", "https://huggingface.co", true),
            ("https://huggingface.co", "http://huggingface.co", false),
            ("https://huggingface.co", "https://huggingface.co.evil.example", false),
            ("https://huggingface.co", "https://evil.example/huggingface.co", false),
            ("https://huggingface.co", "https://huggingface.co@evil.example/", false),
            ("https://huggingface.co", "https://cdn-lfs.huggingface.co", false),
            ("http://127.0.0.1:80", "http://127.0.0.1:81", false),
            ("nonsense", "nonsense", false),
        ] {
            assert_eq!(same_origin(a, b), same, "{a} {b}");
        }
        for (url, expected) in [
            ("http://127.0.0.1:8080/x", true),
            ("http://localhost:1", true),
            ("http://[::1]:8080", true),
            ("https://huggingface.co", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }

    #[test]
    fn redirects_are_joined() {
        let base = "https://h.example:8443/a/resolve/main/x.bin?q=1";
        for (location, expected) in [
            ("https://cdn.example/f?sig=%2F", Some("https://cdn.example/f?sig=%2F")),
            ("//cdn.example/f", Some("https://cdn.example/f")),
            ("/b/x.bin", Some("https://h.example:8443/b/x.bin")),
            ("y.bin", Some("https://h.example:8443/a/resolve/main/y.bin")),
            ("", None),
            ("ftp://cdn.example/f", None),
            ("file:///etc/passwd", None),
            ("https://", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("refs/pr/7", ""), "refs%2Fpr%2F7");
        assert_eq!(quote("sub/a b+ü.bin", "/"), "sub/a%20b%2B%C3%BC.bin");
    }
}
