//! Takes typed values out of one section, and notes everything that is wrong instead of stopping at the first.
//!
//! The keys that are asked for are the allowed ones; what is left over at the end is unknown.

use super::problem::{Problem, did_you_mean, unknown_key};
use serde_json::{Map, Value};

/// Numbers that are allowed, and how a message says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    low: f64,
    low_included: bool,
    high: f64,
    high_included: bool,
}

impl Range {
    /// 0 and above.
    pub const NOT_NEGATIVE: Self = Self { low: 0.0, low_included: true, high: f64::INFINITY, high_included: false };
    /// Above 0.
    pub const POSITIVE: Self = Self { low_included: false, ..Self::NOT_NEGATIVE };
    /// From 0 up to, not including, 1.
    pub const BELOW_ONE: Self = Self { high: 1.0, ..Self::NOT_NEGATIVE };
    /// From 0 up to and including 1.
    pub const SHARE_OR_NONE: Self = Self { high: 1.0, high_included: true, ..Self::NOT_NEGATIVE };
    /// Above 0 up to and including 1.
    pub const SHARE: Self = Self { low_included: false, high: 1.0, high_included: true, ..Self::NOT_NEGATIVE };

    fn contains(&self, x: f64) -> bool {
        let above = x > self.low || (self.low_included && x == self.low);
        let below = x < self.high || (self.high_included && x == self.high);
        above && below && x.is_finite()
    }

    fn words(&self) -> String {
        let low = if self.low_included { format!("at least {}", self.low) } else { format!("above {}", self.low) };
        match (self.high.is_finite(), self.high_included) {
            (false, _) => low,
            (true, true) => format!("{low} and at most {}", self.high),
            (true, false) => format!("{low} and below {}", self.high),
        }
    }
}

/// One section while it is read.
pub(super) struct Reader<'a> {
    section: String,
    map: Map<String, Value>,
    asked: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of `value`, which must be a map; `section` is empty at the top level.
    pub fn new(section: &str, value: Value, problems: &'a mut Vec<Problem>) -> Self {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => {
                let message = format!("{} is not allowed, must be a map of keys", shown(&other));
                problems.push(Problem::new(section, "", message));
                Map::new()
            }
        };
        Self { section: section.to_string(), map, asked: Vec::new(), problems }
    }

    /// Notes a problem with `key`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(&self.section, key, message));
    }

    /// Where the problems go, for a section inside this one.
    pub fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }

    /// The value of `key`, whatever it is; null counts as absent.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.map.shift_remove(key).filter(|v| !v.is_null())
    }

    /// Whether `key` is there, without taking it.
    pub fn peek(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    fn refuse(&mut self, key: &str, value: &Value, allowed: &str) {
        self.problem(key, format!("value {} is not allowed, must be {allowed}", shown(value)));
    }

    /// Text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                let hint = if other.is_number() || other.is_boolean() { "text (put it in quotes)" } else { "text" };
                self.refuse(key, &other, hint);
                None
            }
        }
    }

    /// Text that names something, so it is not empty.
    pub fn name(&mut self, key: &'static str) -> Option<String> {
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.problem(key, "the text is empty");
            return None;
        }
        Some(text)
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            other => {
                self.refuse(key, &other, "true or false");
                None
            }
        }
    }

    /// True or false, or `word`, which stands for `value`.
    pub fn flag_or<T>(&mut self, key: &'static str, word: &str, value: T, flag: impl Fn(bool) -> T) -> Option<T> {
        match self.take(key)? {
            Value::Bool(found) => Some(flag(found)),
            Value::String(text) if text == word => Some(value),
            other => {
                self.refuse(key, &other, &format!("true, false or {word}"));
                None
            }
        }
    }

    /// A whole number of at least `low`.
    pub fn count(&mut self, key: &'static str, low: u64) -> Option<u64> {
        let value = self.take(key)?;
        match value.as_u64() {
            Some(n) if n >= low => Some(n),
            _ => {
                self.refuse(key, &value, &format!("a whole number, at least {low}"));
                None
            }
        }
    }

    /// [`Self::count`] as a size in memory.
    pub fn size(&mut self, key: &'static str, low: u64) -> Option<usize> {
        self.count(key, low).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// A number in `range`.
    pub fn number(&mut self, key: &'static str, range: Range) -> Option<f64> {
        let value = self.take(key)?;
        match value.as_f64() {
            Some(x) if range.contains(x) => Some(x),
            _ => {
                self.refuse(key, &value, &format!("a number, {}", range.words()));
                None
            }
        }
    }

    /// Two numbers in `range`.
    pub fn pair(&mut self, key: &'static str, range: Range) -> Option<[f64; 2]> {
        let value = self.take(key)?;
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        match numbers.as_deref() {
            Some([a, b]) if range.contains(*a) && range.contains(*b) => Some([*a, *b]),
            _ => {
                self.refuse(key, &value, &format!("a list of two numbers, each {}", range.words()));
                None
            }
        }
    }

    /// One of a few names.
    pub fn choice<T: Copy>(&mut self, key: &'static str, options: &[(&'static str, T)]) -> Option<T> {
        let name = self.text(key)?;
        if let Some((_, option)) = options.iter().find(|(n, _)| *n == name) {
            return Some(*option);
        }
        let names: Vec<&str> = options.iter().map(|(n, _)| *n).collect();
        let hint = did_you_mean(&name, &names);
        self.problem(key, format!("value {name:?} is not allowed{hint}, must be {}", or(&names)));
        None
    }

    /// Ends the reading: every key that was not asked for is unknown.
    pub fn finish(mut self) {
        let left: Vec<String> = self.map.keys().cloned().collect();
        for key in left {
            let message = unknown_key(&key, &self.asked);
            self.problem(&key, message);
        }
    }

    /// Ends the reading: the keys that were not asked for belong to someone else.
    pub fn rest(self) -> Map<String, Value> {
        self.map
    }
}

/// `value` as messages show it: JSON, cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) if matches!(text.as_str(), "NaN" | "inf" | "-inf") => text.clone(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn or(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => one.to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
