//! The host's weights as a `WeightSource` of this library's `limber-core`.

use limber_core::weights::{FrozenData, Init, Request, WeightError, WeightSource, WeightType};
use limber_plugin_abi::lend::{self, c_text};
use limber_plugin_abi::{
    LIMBER_INIT_CONST, LIMBER_INIT_NORMAL, LIMBER_INIT_NORMAL_BUT_ROW, LIMBER_INIT_TRUNCATED_NORMAL,
    LIMBER_INIT_UNIFORM, LIMBER_OK, LimberRequest, LimberSource, LimberTensor, LimberWeight, TableError, named, read,
};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::RwLock;

/// Reads through the host's table, until it is closed.
pub(crate) struct HostSource {
    label: String,
    /// None once the call is over that the table was lent to.
    table: RwLock<Option<LimberSource>>,
}

// SAFETY: the table's functions may be called from any thread, as the ABI says.
unsafe impl Send for HostSource {}
// SAFETY: as above.
unsafe impl Sync for HostSource {}

impl HostSource {
    /// The source at `table`.
    ///
    /// # Safety
    /// `table` is null or a source as the ABI says, which lives until [`Self::close`].
    pub(crate) unsafe fn new(table: *const LimberSource) -> Result<Self, TableError> {
        // SAFETY: by the caller's promise.
        let table = unsafe { read(table)? };
        let mut label = None;
        if let Some(function) = table.label {
            let sink = lend::sink(&mut label);
            // SAFETY: the sink lives beyond the call.
            unsafe { function(table.context, &*sink) };
        }
        Ok(Self { label: label.unwrap_or_else(|| "the host's weights".into()), table: RwLock::new(Some(table)) })
    }

    /// Ends the loan: who kept this source gets an error from now on.
    pub(crate) fn close(&self) {
        *self.table.write().unwrap_or_else(|e| e.into_inner()) = None;
    }

    fn error(&self, message: impl Into<String>) -> WeightError {
        WeightError::Read { source_label: self.label.clone(), message: message.into() }
    }

    /// Runs `body` over the table, which cannot be closed meanwhile.
    fn with<R>(&self, body: impl FnOnce(&LimberSource) -> Result<R, WeightError>) -> Result<R, WeightError> {
        let table = self.table.read().unwrap_or_else(|e| e.into_inner());
        let table =
            table.as_ref().ok_or_else(|| self.error("weights can be read only while the component is built"))?;
        body(table)
    }
}

/// A message of the host begins with the source's label already.
fn host_error(message: Option<String>, label: &str) -> WeightError {
    let message = message.unwrap_or_else(|| "no message".into());
    let message = message.strip_prefix(label).and_then(|m| m.strip_prefix(": ")).unwrap_or(&message);
    WeightError::Read { source_label: label.to_string(), message: message.to_string() }
}

impl WeightSource for HostSource {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        let listed = self.with(|table| {
            let function = table.tensors.ok_or_else(|| self.error("the host lists no tensors"))?;
            let (mut list, mut known) = (Vec::new(), 0);
            let names = lend::names(&mut list);
            // SAFETY: the list and the number live beyond the call.
            let status = unsafe { function(table.context, &*names, &mut known) };
            if status != LIMBER_OK {
                return Err(self.error("the host could not list its tensors"));
            }
            let sizes = |shape: Vec<i64>| shape.into_iter().map(|size| usize::try_from(size).unwrap_or(0)).collect();
            Ok((known != 0).then(|| list.into_iter().map(|(name, shape)| (name, sizes(shape))).collect()))
        });
        // A source that has gone has nothing.
        listed.unwrap_or_else(|_| Some(BTreeMap::new()))
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        self.with(|table| {
            let function = table.read.ok_or_else(|| self.error("the host reads no tensors"))?;
            let name = c_text(request.name);
            let shape: Vec<i64> = request.shape.iter().map(|size| *size as i64).collect();
            let format = c_text(request.dtype.name());
            let asked = LimberRequest {
                name: name.as_ptr(),
                shape: shape.as_ptr(),
                ndim: shape.len() as i32,
                format: format.as_ptr(),
                ..drawn(request.init)
            };
            let mut weight = LimberWeight::empty();
            let mut message = None;
            let sink = lend::sink(&mut message);
            // SAFETY: all arguments live beyond the call.
            let status = unsafe { function(table.context, &asked, &mut weight, &*sink) };
            if status != LIMBER_OK {
                return Err(host_error(message, &self.label));
            }
            let lease = Lease { weight };
            lease.data(request).map_err(|message| self.error(format!("tensor {:?}: {message}", request.name)))
        })
    }

    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        self.with(|table| {
            let Some(function) = table.document else { return Ok(None) };
            let (name, mut text, mut message, mut found) = (c_text(name), None, None, 0);
            let (taker, sink) = (lend::sink(&mut text), lend::sink(&mut message));
            // SAFETY: all arguments live beyond the call.
            let status = unsafe { function(table.context, name.as_ptr(), &*taker, &mut found, &*sink) };
            match status {
                LIMBER_OK => Ok(text.filter(|_| found != 0)),
                _ => Err(host_error(message, &self.label)),
            }
        })
    }
}

/// How a random source draws, in numbers.
fn drawn(init: Init) -> LimberRequest {
    let empty = LimberRequest::empty();
    match init {
        Init::Const(a) => LimberRequest { init: LIMBER_INIT_CONST, a, ..empty },
        Init::Normal { mean, std } => LimberRequest { init: LIMBER_INIT_NORMAL, a: mean, b: std, ..empty },
        Init::TruncatedNormal { std, low, high } => {
            LimberRequest { init: LIMBER_INIT_TRUNCATED_NORMAL, a: std, b: low, c: high, ..empty }
        }
        Init::NormalButRow { std, row } => {
            LimberRequest { init: LIMBER_INIT_NORMAL_BUT_ROW, a: std, row: row as u64, ..empty }
        }
        Init::Uniform { low, high } => LimberRequest { init: LIMBER_INIT_UNIFORM, a: low, b: high, ..empty },
    }
}

/// Elements that the host lends until this is dropped.
struct Lease {
    weight: LimberWeight,
}

// SAFETY: the elements are never written, and a lease may be ended from any thread, as the ABI says.
unsafe impl Send for Lease {}
// SAFETY: as above.
unsafe impl Sync for Lease {}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.weight.release {
            // SAFETY: called once, with what the host gave for it.
            unsafe { release(self.weight.lease) };
        }
    }
}

/// The window of a lease.
struct Lent {
    data: *const u8,
    bytes: usize,
    _lease: Lease,
}

// SAFETY: as the lease, which keeps the bytes in place.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        if self.bytes == 0 {
            return &[];
        }
        // SAFETY: the lease keeps these bytes in place and nobody writes them.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}

impl Lease {
    /// The elements where they lie.
    fn data(self, request: &Request) -> Result<FrozenData, String> {
        // SAFETY: the host's tensor and format live as long as the lease.
        let (tensor, format) = unsafe {
            let tensor = read::<LimberTensor>(self.weight.tensor).map_err(|e| e.to_string())?;
            if self.weight.format.is_null() {
                return Err("the host names no format".into());
            }
            (tensor, CStr::from_ptr(self.weight.format).to_string_lossy().into_owned())
        };
        let dtype = WeightType::named(&format).ok_or_else(|| format!("the host's format {format:?} is unknown"))?;
        let element = match dtype {
            WeightType::F32 => limber_plugin_abi::F32,
            WeightType::F16 => limber_plugin_abi::F16,
            WeightType::Bf16 => limber_plugin_abi::BF16,
            WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => limber_plugin_abi::U8,
        };
        // SAFETY: as above.
        let dims = unsafe { tensor.check(element)? };
        if !dtype.is_quantised() && dims != request.shape {
            return Err(format!(
                "the host gave shape {dims:?} of {}, asked was {:?}",
                named(element, 1),
                request.shape
            ));
        }
        let bytes = dims.iter().product::<usize>() * usize::from(element.1) / 8;
        let lent = Lent { data: tensor.data.cast(), bytes, _lease: self };
        FrozenData::new(std::sync::Arc::new(lent), 0..bytes, dtype, request.shape)
    }
}
