//! A component as an entry of the registry.

use crate::component::{Component, Functions};
use crate::handshake::Plugin;
use crate::source::Lender;
use crate::{decoder, encoder, stitch};
use anyhow::{Error, Result};
use limber_core::WeightSource;
use limber_core::registry::{Entry, Maker, Origin};
use std::path::Path;
use std::sync::Arc;

/// The entry of `component`.
pub(crate) fn of(component: Arc<Component>, path: &Path, plugin: &Plugin) -> Entry {
    let maker = match component.functions {
        Functions::Encoder(table) => {
            let component = component.clone();
            Maker::Encoder(Arc::new(move |settings, source| encoder::prepare(&component, table, settings, source)))
        }
        Functions::Stitch(table) => {
            let component = component.clone();
            Maker::Stitch(Arc::new(move |settings, context| stitch::prepare(&component, table, settings, context)))
        }
        Functions::Decoder(table) => {
            let component = component.clone();
            Maker::Decoder(Arc::new(move |settings, source| decoder::prepare(&component, table, settings, source)))
        }
    };
    Entry {
        kind: component.kind.clone(),
        about: component.about.clone(),
        origin: Origin::Library {
            path: path.display().to_string(),
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            abi: plugin.abi.clone(),
        },
        files: component.files.clone(),
        needs_weights: component.needs_weights(),
        schema: component.schema.clone(),
        tiny: component.tiny.clone(),
        recognises: Arc::new(move |source| recognises(&component, source)),
        maker,
    }
}

fn recognises(component: &Component, source: &dyn WeightSource) -> Result<bool> {
    let Some(function) = component.table.recognises else { return Ok(false) };
    let (lender, mut yes) = (Lender::Source(source), 0);
    let table = lender.table();
    // SAFETY: all arguments live beyond the call.
    component
        .call("recognise", |error| unsafe { function(component.raw, table.as_ptr(), &mut yes, error) })
        .map_err(Error::msg)?;
    Ok(yes != 0)
}
