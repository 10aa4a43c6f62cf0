//! For both sides where they are Rust: takers of texts and names over borrowed memory, and texts as C has them.

use crate::source::{LimberNames, LimberSink};
use crate::table::read;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ops::Deref;

/// `text` as C has it; a zero byte inside, which C cannot hold, is left out.
pub fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// The text at `text`, copied.
///
/// # Errors
/// A null pointer, or a text that is not UTF-8; the message says `what` it should have been.
///
/// # Safety
/// `text` is null or ends in a zero byte.
pub unsafe fn text(text: *const c_char, what: &str) -> Result<String, String> {
    if text.is_null() {
        return Err(format!("{what} is null"));
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(text.to_str().map_err(|_| format!("{what} is not UTF-8: {:?}", text.to_string_lossy()))?.to_string())
}

/// Gives `text` to a sink.
///
/// # Errors
/// A sink that cannot be read, or has no function.
///
/// # Safety
/// `sink` is null or a sink as the ABI says.
pub unsafe fn give(sink: *const LimberSink, text: &str) -> Result<(), String> {
    // SAFETY: by the caller's promise.
    let table = unsafe { read(sink) }.map_err(|e| e.to_string())?;
    let take = table.text.ok_or("LimberSink has no function")?;
    let text = c_text(text);
    // SAFETY: the text lives beyond the call, the context is the sink's own.
    unsafe { take(table.context, text.as_ptr()) };
    Ok(())
}

/// A table of this side over memory that stays borrowed as long as it is there.
pub struct Lent<'a, T>(T, PhantomData<&'a mut ()>);

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A sink that keeps the last text it was given.
pub fn sink(text: &mut Option<String>) -> Lent<'_, LimberSink> {
    unsafe extern "C" fn take(context: *mut c_void, text: *const c_char) {
        if text.is_null() {
            return;
        }
        // SAFETY: the context is the option below, which stays borrowed as long as the sink is there.
        unsafe { *context.cast::<Option<String>>() = Some(CStr::from_ptr(text).to_string_lossy().into_owned()) };
    }
    let context = (text as *mut Option<String>).cast();
    Lent(LimberSink { context, text: Some(take), ..LimberSink::empty() }, PhantomData)
}

/// Names with their shapes, in the order they were given.
pub type Named = Vec<(String, Vec<i64>)>;

/// A taker that keeps every name it is given.
pub fn names(list: &mut Named) -> Lent<'_, LimberNames> {
    unsafe extern "C" fn take(context: *mut c_void, name: *const c_char, shape: *const i64, ndim: i32) {
        if name.is_null() || shape.is_null() && ndim > 0 {
            return;
        }
        // SAFETY: as in `sink`; the shape holds `ndim` sizes.
        unsafe {
            let name = CStr::from_ptr(name).to_string_lossy().into_owned();
            let shape = if ndim > 0 { std::slice::from_raw_parts(shape, ndim as usize).to_vec() } else { Vec::new() };
            (*context.cast::<Named>()).push((name, shape));
        }
    }
    let context = (list as *mut Named).cast();
    Lent(LimberNames { context, name: Some(take), ..LimberNames::empty() }, PhantomData)
}
