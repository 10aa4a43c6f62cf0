//! When a reproduction began: kept in its folder, so that a report which is written again has the same date.

use anyhow::{Context, Result};
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `OUT/run.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Seconds since 1970.
    began: u64,
}

/// The day on which the reproduction in `out` began, or that of `SOURCE_DATE_EPOCH` where it is set; as 2026-11-28.
///
/// # Errors
/// A record that cannot be read or written.
pub fn day(out: &Path) -> Result<String> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let path = out.join("run.json");
    let began = match given {
        Some(seconds) => seconds,
        None if path.exists() => {
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let record: Record = serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
            record.began
        }
        None => {
            let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            weights::replace(&path, serde_json::to_string(&Record { began })?.as_bytes())?;
            began
        }
    };
    let (year, month, day) = civil(began / 86_400);
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// Year, month and day of so many days since 1970-01-01 (Howard Hinnant, `civil_from_days`); years begin in March there.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_785, (2026, 11, 28)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), expected, "{days}");
        }
    }

    #[test]
    fn a_day_stays_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("run.json"), "{\"began\": 951782400}").expect("written");
        // The environment of a build may fix the day of all reports.
        let expected = if std::env::var_os("SOURCE_DATE_EPOCH").is_some() { None } else { Some("2000-02-29") };
        assert!(expected.is_none_or(|day| super::day(folder.path()).expect("a day") == day));
        let new = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(day(new.path()).expect("a day"), day(new.path()).expect("the same day"));
    }
}
