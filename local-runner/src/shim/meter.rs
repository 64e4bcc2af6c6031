//! Rewrites a validated module so that it counts its own instructions and can be run one message at a time.
//!
//! The result differs from the input in six ways, none of which the canister can observe:
//! - three globals are added: the instructions left ([`COUNTER`]), a flag that is set when they ran out
//!   ([`EXHAUSTED`]) and the size of the largest bulk operation ([`LARGEST`]); no index of the module changes;
//! - code subtracts its cost from the counter, block by block (see `meter/body.rs`);
//! - exports other than functions give way to the memory, the table, these globals and every mutable global of the
//!   module, under names of this module, so that state can be carried from one instance to the next;
//! - the start function becomes an export, to be run once, not for every instance;
//! - active data segments become empty and their bytes are returned as the initial heap image;
//! - custom sections other than the function names are dropped.

use wasm_encoder::{
    ConstExpr, DataSection, Encode, ExportKind, ExportSection, GlobalType, Module, RawSection, SectionId,
};
use wasmparser::types::TypesRef;
use wasmparser::{ExternalKind, Parser, Payload};

use super::module::{ModuleError, ValidModule, active_offset};

mod body;
#[cfg(test)]
mod tests;

/// Export name of the i64 global that holds the instructions left.
pub const COUNTER: &str = "icllama counter";
/// Export name of the i32 global that is 1 after running out of instructions.
pub const EXHAUSTED: &str = "icllama exhausted";
/// Export name of the i32 global that holds the largest size operand of a bulk operator so far, unsigned.
pub const LARGEST: &str = "icllama largest";
/// Export name of the start function.
pub const START: &str = "icllama start";
/// Export name of the memory.
pub const MEMORY: &str = "icllama memory";
/// Export name of the function table.
pub const TABLE: &str = "icllama table";
/// Start of the export names of the module's own mutable globals; their position follows.
pub const GLOBAL_PREFIX: &str = "icllama global ";

/// An instrumented module.
#[derive(Debug)]
pub struct Instrumented {
    /// The rewritten module.
    pub wasm: Vec<u8>,
    /// Initial heap contents: address and bytes of each active data segment, in order.
    pub image: Vec<(u32, Vec<u8>)>,
    /// Number of exported mutable globals, the added ones not included.
    pub mutable_globals: usize,
    /// Operators the platform would compile, its instrumentation included but for its few helper functions.
    pub operators: u64,
}

/// Position of a section in a module, by its id; ids are not in the order sections must have.
const SECTION_ORDER: [SectionId; 12] = [
    SectionId::Type,
    SectionId::Import,
    SectionId::Function,
    SectionId::Table,
    SectionId::Memory,
    SectionId::Tag,
    SectionId::Global,
    SectionId::Export,
    SectionId::Element,
    SectionId::DataCount,
    SectionId::Code,
    SectionId::Data,
];

/// Index of each injected global.
#[derive(Clone, Copy)]
struct Injected {
    counter: u32,
    exhausted: u32,
    largest: u32,
}

struct Rewriter<'a> {
    wasm: &'a [u8],
    types: TypesRef<'a>,
    /// Finished sections by id: contents without id and length.
    sections: Vec<(u8, Vec<u8>)>,
    names: Option<&'a [u8]>,
    exports: ExportSection,
    image: Vec<(u32, Vec<u8>)>,
    mutable_globals: usize,
    operators: u64,
    injected: Injected,
    imported_functions: u32,
    code: Vec<u8>,
    code_count: u32,
}

/// Instruments a valid module.
///
/// # Errors
/// If a part of the module cannot be decoded, which validation excludes.
pub fn instrument(module: &ValidModule<'_>) -> Result<Instrumented, ModuleError> {
    let types = module.types.as_ref();
    let globals = types.global_count();
    let mut rewriter = Rewriter {
        wasm: module.wasm,
        types,
        sections: Vec::new(),
        names: None,
        exports: ExportSection::new(),
        image: Vec::new(),
        mutable_globals: 0,
        operators: 2 * u64::from(globals),
        injected: Injected { counter: globals, exhausted: globals + 1, largest: globals + 2 },
        imported_functions: module.info.imports.len() as u32,
        code: Vec::new(),
        code_count: 0,
    };
    for payload in Parser::new(0).parse_all(module.wasm) {
        rewriter.payload(&payload?)?;
    }
    Ok(rewriter.finish())
}

impl<'a> Rewriter<'a> {
    fn payload(&mut self, payload: &Payload<'a>) -> Result<(), ModuleError> {
        match payload {
            Payload::TableSection(_) => {
                self.export(TABLE, ExportKind::Table, 0);
                self.copy(payload);
            }
            Payload::MemorySection(_) => {
                self.export(MEMORY, ExportKind::Memory, 0);
                self.copy(payload);
            }
            Payload::GlobalSection(globals) => self.globals(globals)?,
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.export(export.name, ExportKind::Func, export.index);
                    }
                }
            }
            Payload::StartSection { func, .. } => self.export(START, ExportKind::Func, *func),
            Payload::CodeSectionEntry(function) => {
                let index = self.imported_functions + self.code_count;
                let params = self.types[self.types.core_function_at(index)].unwrap_func().params().len() as u32;
                let body = body::instrument(function, params, self.injected)?;
                self.operators += body.operators;
                body.bytes.encode(&mut self.code);
                self.code_count += 1;
            }
            Payload::DataSection(segments) => self.data(segments.clone())?,
            Payload::CustomSection(section) if section.name() == "name" => self.names = Some(section.data()),
            Payload::CustomSection(_) | Payload::CodeSectionStart { .. } => {}
            other => self.copy(other),
        }
        Ok(())
    }

    fn copy(&mut self, payload: &Payload<'_>) {
        if let Some((id, range)) = payload.as_section() {
            self.sections.push((id, self.wasm[range].to_vec()));
        }
    }

    fn export(&mut self, name: &str, kind: ExportKind, index: u32) {
        self.exports.export(name, kind, index);
    }

    fn globals(&mut self, globals: &wasmparser::GlobalSectionReader<'a>) -> Result<(), ModuleError> {
        for (index, global) in globals.clone().into_iter().enumerate() {
            if global?.ty.mutable {
                let name = format!("{GLOBAL_PREFIX}{}", self.mutable_globals);
                self.export(&name, ExportKind::Global, index as u32);
                self.mutable_globals += 1;
            }
        }
        // The entries follow the count; they are copied as they are.
        let entries = self.wasm[globals.original_position()..globals.range().end].to_vec();
        self.sections.push((SectionId::Global as u8, self.with_injected(globals.count(), &entries)));
        Ok(())
    }

    /// Contents of a global section with the injected globals behind `entries`.
    fn with_injected(&self, count: u32, entries: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        (count + 3).encode(&mut bytes);
        bytes.extend_from_slice(entries);
        let (i64, i32) = (wasm_encoder::ValType::I64, wasm_encoder::ValType::I32);
        let zero = (i32, ConstExpr::i32_const(0));
        for (val_type, init) in [(i64, ConstExpr::i64_const(0)), zero.clone(), zero] {
            GlobalType { val_type, mutable: true, shared: false }.encode(&mut bytes);
            init.encode(&mut bytes);
        }
        bytes
    }

    fn data(&mut self, segments: wasmparser::DataSectionReader<'_>) -> Result<(), ModuleError> {
        let mut section = DataSection::new();
        for (index, segment) in segments.into_iter().enumerate() {
            let segment = segment?;
            match active_offset(index, &segment)? {
                None => section.passive(segment.data.iter().copied()),
                Some(offset) => {
                    self.image.push((offset, segment.data.to_vec()));
                    // An active segment is empty once it was applied; its index must stay taken.
                    section.passive([])
                }
            };
        }
        let mut bytes = Vec::new();
        section.encode(&mut bytes);
        self.sections.push((SectionId::Data as u8, without_length(&bytes)));
        Ok(())
    }

    fn finish(mut self) -> Instrumented {
        if !self.sections.iter().any(|(id, _)| *id == SectionId::Global as u8) {
            self.sections.push((SectionId::Global as u8, self.with_injected(0, &[])));
        }
        self.export(COUNTER, ExportKind::Global, self.injected.counter);
        self.export(EXHAUSTED, ExportKind::Global, self.injected.exhausted);
        self.export(LARGEST, ExportKind::Global, self.injected.largest);
        let mut exports = Vec::new();
        self.exports.encode(&mut exports);
        self.sections.push((SectionId::Export as u8, without_length(&exports)));
        if self.code_count > 0 {
            let mut code = Vec::new();
            self.code_count.encode(&mut code);
            code.append(&mut self.code);
            self.sections.push((SectionId::Code as u8, code));
        }
        let mut module = Module::new();
        for id in SECTION_ORDER.map(|id| id as u8) {
            for (_, data) in self.sections.iter().filter(|(found, _)| *found == id) {
                module.section(&RawSection { id, data });
            }
        }
        if let Some(data) = self.names {
            module.section(&wasm_encoder::CustomSection { name: "name".into(), data: data.into() });
        }
        let Self { image, mutable_globals, operators, .. } = self;
        Instrumented { wasm: module.finish(), image, mutable_globals, operators }
    }
}

/// Contents of an encoded section: what follows its length.
fn without_length(section: &[u8]) -> Vec<u8> {
    let length_bytes = section.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    section[length_bytes..].to_vec()
}
