//! `tracing` events of the plugin, sent to the host's log.
//!
//! A library has its own copy of `tracing`, so nothing of the host's subscriber reaches it.

use limber_plugin_abi::lend::c_text;
use limber_plugin_abi::{
    LIMBER_LOG_DEBUG, LIMBER_LOG_ERROR, LIMBER_LOG_INFO, LIMBER_LOG_TRACE, LIMBER_LOG_WARN, LimberHost,
};
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Sends this library's events to `host` from now on.
pub(crate) fn bridge(host: LimberHost) {
    // A second entry finds the first one's bridge, which leads to the same host.
    let _ = tracing::subscriber::set_global_default(Bridge { host });
}

struct Bridge {
    host: LimberHost,
}

// SAFETY: the host's table lives as long as the process and its log may be called from any thread, as the ABI says.
unsafe impl Send for Bridge {}
// SAFETY: as above.
unsafe impl Sync for Bridge {}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => LIMBER_LOG_ERROR,
        Level::WARN => LIMBER_LOG_WARN,
        Level::INFO => LIMBER_LOG_INFO,
        Level::DEBUG => LIMBER_LOG_DEBUG,
        Level::TRACE => LIMBER_LOG_TRACE,
    }
}

impl Subscriber for Bridge {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_event() && number(*metadata.level()) <= self.host.log_level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        let shown = levels.into_iter().rev().find(|level| number(*level) <= self.host.log_level);
        Some(shown.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event) {
        let Some(log) = self.host.log else { return };
        let mut line = Line(String::new());
        event.record(&mut line);
        let (target, message) = (c_text(event.metadata().target()), c_text(&line.0));
        let level = number(*event.metadata().level());
        // SAFETY: both texts live beyond the call.
        unsafe { log(self.host.context, level, target.as_ptr(), message.as_ptr()) };
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, then the other fields as `name=value`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `String` cannot fail.
        let _ = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{rest}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
