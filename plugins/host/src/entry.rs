//! A component as an entry of the registry.

use crate::handshake::Plugin;
use crate::part::{Functions, Part};
use crate::source::Lender;
use crate::{decoder, encoder, stitch};
use anyhow::{Error, Result};
use limber_core::WeightSource;
use limber_core::registry::{Entry, Maker, Origin};
use std::path::Path;
use std::sync::Arc;

/// The entry of `part`.
pub(crate) fn of(part: Arc<Part>, path: &Path, plugin: &Plugin) -> Entry {
    let maker = match part.functions {
        Functions::Encoder(table) => {
            let part = part.clone();
            Maker::Encoder(Arc::new(move |settings, source| encoder::prepare(&part, table, settings, source)))
        }
        Functions::Stitch(table) => {
            let part = part.clone();
            Maker::Stitch(Arc::new(move |settings, context| stitch::prepare(&part, table, settings, context)))
        }
        Functions::Decoder(table) => {
            let part = part.clone();
            Maker::Decoder(Arc::new(move |settings, source| decoder::prepare(&part, table, settings, source)))
        }
    };
    Entry {
        kind: part.kind.clone(),
        about: part.about.clone(),
        origin: Origin::Library {
            path: path.display().to_string(),
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            abi: plugin.abi.clone(),
        },
        files: part.files.clone(),
        needs_weights: part.needs_weights(),
        schema: part.schema.clone(),
        tiny: part.tiny.clone(),
        recognises: Arc::new(move |source| recognises(&part, source)),
        maker,
    }
}

fn recognises(part: &Part, source: &dyn WeightSource) -> Result<bool> {
    let Some(function) = part.table.recognises else { return Ok(false) };
    let (lender, mut yes) = (Lender::Source(source), 0);
    let table = lender.table();
    // SAFETY: all arguments live beyond the call.
    part.call("recognise", |error| unsafe { function(part.raw, table.as_ptr(), &mut yes, error) })
        .map_err(Error::msg)?;
    Ok(yes != 0)
}
