//! What the tables of encoders and decoders have in common: preparing and building.

use crate::call::{answer, exported, give, set};
use crate::export::{Lent, entry_of, handle, release, settings};
use anyhow::{Result, bail};
use limber_core::WeightSource;
use limber_core::registry::{Entry, Maker, PrepareFn, Prepared};
use limber_plugin_abi::*;
use serde_json::Value;
use std::ffi::c_char;

fn prepared<R: Role>(entry: &Entry, settings: Value, source: &dyn WeightSource) -> Result<Prepared<R::Spec, R::Built>> {
    match R::maker(&entry.maker) {
        Some(prepare) => prepare(settings, source),
        None => bail!("{} is registered as {}, the table is that of another role", entry.kind, entry.maker.role()),
    }
}

/// A role whose components stand alone: no side that they are held against.
pub(crate) trait Role: 'static {
    /// The trait object that is built.
    type Built: ?Sized;
    /// Its spec in Rust.
    type Spec;
    /// Its spec as the host reads it.
    type Answer: Table;

    /// How an entry of this role prepares; None for one of another role.
    fn maker(maker: &Maker) -> Option<&PrepareFn<Self::Spec, Self::Built>>;

    fn answer(spec: Self::Spec) -> Result<Self::Answer>;
}

/// The functions that every such table begins with.
pub(crate) struct Functions<R: Role> {
    pub prepare: unsafe extern "C" fn(
        *const LimberPart,
        *const c_char,
        *const LimberSource,
        *const LimberSink,
        *mut R::Answer,
        *const LimberSink,
    ) -> LimberStatus,
    pub build: unsafe extern "C" fn(
        *const LimberPart,
        *const c_char,
        *const LimberSource,
        *const LimberBuild,
        *mut *mut LimberInstance,
        *const LimberSink,
    ) -> LimberStatus,
    pub release: unsafe extern "C" fn(*mut LimberInstance),
}

/// Those of the role `R`.
pub(crate) fn functions<R: Role>() -> Functions<R> {
    Functions { prepare: prepare::<R>, build: build::<R>, release: release::<LimberInstance, Box<R::Built>> }
}

exported! {
    fn prepare[R: Role](
        component: *const LimberPart, text: *const c_char, source: *const LimberSource, resolved: *const LimberSink,
        out: *mut R::Answer,
    ) {
        let source = Lent::new(source)?;
        let prepared = prepared::<R>(entry_of(component)?, settings(text)?, source.source())?;
        give(resolved, &prepared.settings.to_string())?;
        answer(out, R::answer(prepared.spec)?)
    }
}

exported! {
    fn build[R: Role](
        component: *const LimberPart, text: *const c_char, source: *const LimberSource, options: *const LimberBuild,
        out: *mut *mut LimberInstance,
    ) {
        let source = Lent::new(source)?;
        let prepared = prepared::<R>(entry_of(component)?, settings(text)?, source.source())?;
        set(out, handle(prepared.build(&source.weights(options)?)?))
    }
}
