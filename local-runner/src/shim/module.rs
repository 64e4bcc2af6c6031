//! Decodes a canister module and refuses what the platform refuses at install.
//!
//! Accepted: WebAssembly 1.0 with mutable globals, sign extension, saturating conversions, multi-value, bulk memory,
//! reference types (functions only), 128-bit SIMD and tail calls. Refused as on the platform: relaxed SIMD, threads,
//! several memories, extended constants, GC, exceptions, function references. Refused here only: 64-bit memories and
//! `externref`. It knows nothing of execution.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use wasmparser::types::{Types, TypesRef};
use wasmparser::{DataKind, DataSectionReader, Operator, Parser, Payload, ValType, Validator, WasmFeatures};

mod code;
mod error;
mod interface;
pub mod limits;
#[cfg(test)]
mod tests;

pub use error::ModuleError;
pub use interface::MethodKind;

use super::costs::WASM_PAGE_BYTES;
use super::heap::MAX_PAGES;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The uncompressed module: gunzips what starts with gzip's magic bytes, returns anything else as it is.
///
/// # Errors
/// If the gzip stream is damaged or the module is too large.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ModuleError> {
    let too_large = ModuleError::TooLarge { limit: limits::MODULE_BYTES };
    if !bytes.starts_with(&GZIP_MAGIC) {
        return if bytes.len() > limits::MODULE_BYTES { Err(too_large) } else { Ok(bytes.into()) };
    }
    let mut wasm = Vec::new();
    let capped = flate2::read::MultiGzDecoder::new(bytes).take(limits::MODULE_BYTES as u64 + 1);
    { capped }.read_to_end(&mut wasm).map_err(ModuleError::Gzip)?;
    if wasm.len() > limits::MODULE_BYTES { Err(too_large) } else { Ok(wasm.into()) }
}

/// A metadata section of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Readable by anyone, not only by controllers.
    pub public: bool,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// What a valid module declares.
#[derive(Debug, Clone, Default)]
pub struct ModuleInfo {
    /// Methods by name.
    pub methods: BTreeMap<String, MethodKind>,
    /// System entry points, such as `canister_init`.
    pub entry_points: BTreeSet<String>,
    /// Names imported from `ic0`, in order.
    pub imports: Vec<String>,
    /// Metadata sections by name, without prefix.
    pub metadata: BTreeMap<String, Metadata>,
    /// Initial and largest size of the memory in 64 KiB pages; none if there is no memory.
    pub memory_pages: Option<(u32, u32)>,
    /// Whether there is a start function.
    pub has_start: bool,
}

fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::FLOATS
}

/// A module that passed [`validate`].
pub struct ValidModule<'a> {
    /// The uncompressed module.
    pub wasm: &'a [u8],
    /// What it declares.
    pub info: ModuleInfo,
    /// Types of its functions.
    pub(super) types: Types,
}

/// Checks an uncompressed module by the platform's rules and describes it.
///
/// # Errors
/// The first rule it breaks.
pub fn validate(wasm: &[u8]) -> Result<ValidModule<'_>, ModuleError> {
    refuse_64_bit(wasm)?;
    let types = Validator::new_with_features(features()).validate_all(wasm)?;
    let mut check = Check { types: types.as_ref(), info: ModuleInfo::default(), functions: 0, metadata_bytes: 0 };
    for payload in Parser::new(0).parse_all(wasm) {
        check.payload(&payload?)?;
    }
    let info = check.info;
    Ok(ValidModule { wasm, info, types })
}

/// The most likely reason of a validation failure gets its own message.
fn refuse_64_bit(wasm: &[u8]) -> Result<(), ModuleError> {
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::MemorySection(memories) => {
                for memory in memories {
                    if memory?.memory64 {
                        return Err(ModuleError::Memory64);
                    }
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    if table?.ty.table64 {
                        return Err(ModuleError::Memory64);
                    }
                }
            }
            Payload::CodeSectionStart { size, .. } => {
                let (bytes, limit) = (size as usize, limits::CODE_BYTES);
                return if bytes > limit { Err(ModuleError::CodeTooLarge { bytes, limit }) } else { Ok(()) };
            }
            _ => {}
        }
    }
    Ok(())
}

struct Check<'a> {
    types: TypesRef<'a>,
    info: ModuleInfo,
    functions: usize,
    metadata_bytes: usize,
}

impl Check<'_> {
    fn payload(&mut self, payload: &Payload<'_>) -> Result<(), ModuleError> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import?;
                    interface::check_import(self.types, &import)?;
                    self.info.imports.push(import.name.into());
                }
            }
            Payload::FunctionSection(functions) => {
                limits::at_most("functions", functions.count() as usize, limits::FUNCTIONS)?;
            }
            Payload::TableSection(tables) => self.tables(tables.clone())?,
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let memory = memory?;
                    let maximum = memory.maximum.unwrap_or(MAX_PAGES.into()).min(MAX_PAGES.into());
                    self.info.memory_pages = Some((memory.initial as u32, maximum as u32));
                }
            }
            Payload::GlobalSection(globals) => self.globals(globals.clone())?,
            Payload::ExportSection(exports) => self.exports(exports.clone())?,
            Payload::StartSection { .. } => self.info.has_start = true,
            Payload::CodeSectionEntry(body) => {
                code::check_body(self.functions, body)?;
                self.functions += 1;
            }
            Payload::DataSection(segments) => self.data(segments.clone())?,
            Payload::CustomSection(section) => self.custom(section.name(), section.data())?,
            _ => {}
        }
        Ok(())
    }

    fn tables(&self, tables: wasmparser::TableSectionReader<'_>) -> Result<(), ModuleError> {
        limits::at_most("tables", tables.count() as usize, limits::TABLES)?;
        for table in tables {
            limits::at_most("table elements", table?.ty.initial as usize, limits::TABLE_ELEMENTS)?;
        }
        Ok(())
    }

    fn globals(&self, globals: wasmparser::GlobalSectionReader<'_>) -> Result<(), ModuleError> {
        limits::at_most("globals", globals.count() as usize, limits::GLOBALS)?;
        for (index, global) in globals.into_iter().enumerate() {
            let ty = global?.ty.content_type;
            if !matches!(ty, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128) {
                return Err(ModuleError::GlobalType { index, found: ty.to_string() });
            }
        }
        Ok(())
    }

    fn exports(&mut self, exports: wasmparser::ExportSectionReader<'_>) -> Result<(), ModuleError> {
        let mut found = interface::Exports::default();
        for export in exports {
            found.add(self.types, &export?)?;
        }
        found.finish()?;
        self.info.methods = found.methods;
        self.info.entry_points = found.entry_points;
        Ok(())
    }

    fn data(&self, segments: DataSectionReader<'_>) -> Result<(), ModuleError> {
        let size = self.info.memory_pages.map_or(0, |(pages, _)| u64::from(pages) * WASM_PAGE_BYTES);
        for (index, segment) in segments.into_iter().enumerate() {
            let segment = segment?;
            let Some(start) = active_offset(index, &segment)? else { continue };
            let end = u64::from(start) + segment.data.len() as u64;
            if end > size {
                return Err(ModuleError::DataOutside { index, start: start.into(), end, size });
            }
        }
        Ok(())
    }

    fn custom(&mut self, section: &str, bytes: &[u8]) -> Result<(), ModuleError> {
        let Some(scoped) = section.strip_prefix("icp:") else { return Ok(()) };
        let (public, name) = match (scoped.strip_prefix("public "), scoped.strip_prefix("private ")) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(ModuleError::CustomSectionName { name: section.into() }),
        };
        self.metadata_bytes += name.len() + bytes.len();
        limits::at_most("bytes of metadata sections", self.metadata_bytes, limits::METADATA_BYTES)?;
        if self.info.metadata.insert(name.into(), Metadata { public, bytes: bytes.into() }).is_some() {
            return Err(ModuleError::DuplicateCustomSection { name: name.into() });
        }
        limits::at_most("metadata sections", self.info.metadata.len(), limits::METADATA_SECTIONS)
    }
}

/// Where an active segment goes; none for a passive one.
pub(super) fn active_offset(index: usize, segment: &wasmparser::Data<'_>) -> Result<Option<u32>, ModuleError> {
    let DataKind::Active { offset_expr, .. } = &segment.kind else { return Ok(None) };
    let mut operators = offset_expr.get_operators_reader();
    match (operators.read()?, operators.read()?) {
        (Operator::I32Const { value }, Operator::End) => Ok(Some(value as u32)),
        _ => Err(ModuleError::DataOffset { index }),
    }
}
