//! Checks that every role shares: settings, schema, specs known before the weights.

use crate::report::Report;
use anyhow::{Context, Result, bail, ensure};
use limber_core::registry::{Entry, Prepared};
use serde_json::{Value, json};
use std::fmt::Debug;

/// Adds the checks of `entry`'s settings; `prepare` is its own, over random weights.
pub(crate) fn check<S: PartialEq + Debug, T: ?Sized>(
    report: &mut Report,
    entry: &Entry,
    prepare: impl Fn(Value) -> Result<Prepared<S, T>>,
) {
    report.check("resolved settings resolve to themselves", || {
        let once = prepare(entry.tiny.clone())?;
        let twice = prepare(once.settings.clone()).context("of resolved settings")?;
        ensure!(once.settings == twice.settings, "{} became {}", once.settings, twice.settings);
        ensure!(once.spec == twice.spec, "spec {:?} became {:?}", once.spec, twice.spec);
        ensure!(once.kind == entry.kind, "kind {:?} is registered as {:?}", once.kind, entry.kind);
        Ok(())
    });
    report.check("the schema names every setting", || {
        let settings = prepare(entry.tiny.clone())?.settings;
        let Value::Object(settings) = &settings else { bail!("settings are {settings}, not a map") };
        let properties = entry.schema.get("properties").and_then(Value::as_object);
        for key in settings.keys() {
            ensure!(properties.is_some_and(|p| p.contains_key(key)), "key {key:?} is not in the schema's properties");
        }
        Ok(())
    });
    report.check("an unknown setting is refused by name", || {
        let mut settings = entry.tiny.clone();
        if settings.is_null() {
            settings = json!({});
        }
        let Value::Object(map) = &mut settings else { bail!("tiny settings are {settings}, not a map") };
        map.insert("no_such_key".into(), json!(1));
        match prepare(settings) {
            Ok(_) => bail!("key \"no_such_key\" was accepted"),
            Err(e) => {
                let message = format!("{e:#}");
                ensure!(message.contains("no_such_key"), "the message does not name the key: {message:?}");
                Ok(())
            }
        }
    });
}
