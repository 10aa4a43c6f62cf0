//! `StopText`: generated text up to the first of some stop strings, piece by piece; what may be the beginning of one is held
//! back until it is certain.

/// Text that ends before a stop string.
#[derive(Debug, Clone)]
pub struct StopText<'a> {
    stops: &'a [String],
    /// The end of the text, which may be the beginning of a stop string.
    held: String,
    is_stopped: bool,
}

impl<'a> StopText<'a> {
    /// A text that ends before any of `stops`, none of them empty; without any it does not end.
    pub fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new(), is_stopped: false }
    }

    /// Whether a stop string was met.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Takes the next piece of the text and gives what of it, and of what was held back, is certain.
    pub fn push(&mut self, piece: &str) -> String {
        if self.is_stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.is_stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back and became no stop string.
    pub fn finish(self) -> String {
        self.held
    }
}

/// Bytes at the end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    let is_shared = |n: &usize| stop.is_char_boundary(*n) && text.as_bytes().ends_with(&stop.as_bytes()[..*n]);
    (1..=longest).rev().find(is_shared).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that come out, and what is left at the end; whether the text was stopped.
    fn told(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut text = StopText::new(&stops);
        let out = pieces.iter().map(|piece| text.push(piece)).collect();
        let is_stopped = text.is_stopped();
        (out, text.finish(), is_stopped)
    }

    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], rest: &str, is_stopped: bool) {
        let expected = expected.iter().map(|piece| piece.to_string()).collect();
        assert_eq!(told(stops, pieces), (expected, rest.to_string(), is_stopped), "{stops:?} in {pieces:?}");
    }

    #[test]
    fn a_stop_string_is_met_across_pieces_and_never_shown() {
        check(&["\n\n"], &["a", "\n", "b\n", "\nc", "d"], &["a", "", "\nb", "", ""], "", true);
        check(&["END"], &["the E", "N", "d", "E"], &["the ", "", "ENd", ""], "E", false);
        check(&["bc", "abcd"], &["xab", "c"], &["x", "a"], "", true);
        check(&["."], &["a. b."], &["a"], "", true);
        check(&["aab"], &["aaa", "b"], &["a", ""], "", true);
        check(&["é!"], &["caf\u{e9}", "!"], &["caf", ""], "", true);
        check(&["ê"], &["é"], &["é"], "", false);
        check(&[], &["a", "b"], &["a", "b"], "", false);
    }
}
