//! What a module may import and export.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::types::TypesRef;
use wasmparser::{ExternalKind, FuncType, TypeRef, ValType};

use super::{ModuleError, limits};
use crate::shim::costs;

/// Ways to call a method from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MethodKind {
    /// `canister_update NAME`
    Update,
    /// `canister_query NAME`
    Query,
    /// `canister_composite_query NAME`
    CompositeQuery,
}

impl MethodKind {
    const ALL: [Self; 3] = [Self::Update, Self::Query, Self::CompositeQuery];

    /// What stands before the method's name in the export, with the space.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Update => "canister_update ",
            Self::Query => "canister_query ",
            Self::CompositeQuery => "canister_composite_query ",
        }
    }
}

const ENTRY_POINTS: [&str; 7] = [
    "canister_init",
    "canister_pre_upgrade",
    "canister_post_upgrade",
    "canister_inspect_message",
    "canister_heartbeat",
    "canister_global_timer",
    "canister_on_low_wasm_memory",
];

const RESERVED: [&str; 6] = [
    "canister counter_instructions",
    "canister counter_dirty_pages",
    "canister counter_accessed_pages",
    "canister_start",
    "stable_memory",
    "stable_bytemap_memory",
];

fn describe_types(types: &[ValType]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn describe(ty: &FuncType) -> String {
    format!("({}) -> ({})", describe_types(ty.params()), describe_types(ty.results()))
}

fn val_types(letters: &str) -> Vec<ValType> {
    letters.chars().map(|letter| if letter == 'I' { ValType::I64 } else { ValType::I32 }).collect()
}

/// Checks that an import is a function of `ic0` with the platform's type.
pub(super) fn check_import(types: TypesRef<'_>, import: &wasmparser::Import<'_>) -> Result<(), ModuleError> {
    let refused = || ModuleError::ImportModule { module: import.module.into(), name: import.name.into() };
    let TypeRef::Func(index) = import.ty else { return Err(refused()) };
    if import.module != "ic0" {
        return Err(refused());
    }
    let function =
        costs::system_function(import.name).ok_or_else(|| ModuleError::UnknownImport { name: import.name.into() })?;
    let found = types[types.core_type_at_in_module(index)].unwrap_func();
    let expected = FuncType::new(val_types(function.params), val_types(function.results));
    if *found != expected {
        let (expected, found) = (describe(&expected), describe(found));
        return Err(ModuleError::ImportSignature { name: import.name.into(), expected, found });
    }
    Ok(())
}

/// Entry points found so far.
#[derive(Default)]
pub(super) struct Exports {
    pub(super) methods: BTreeMap<String, MethodKind>,
    pub(super) entry_points: BTreeSet<String>,
    name_bytes: usize,
}

impl Exports {
    /// Checks one export and remembers it if it is an entry point.
    pub(super) fn add(&mut self, types: TypesRef<'_>, export: &wasmparser::Export<'_>) -> Result<(), ModuleError> {
        let name = export.name;
        if RESERVED.contains(&name) {
            return Err(ModuleError::ReservedExport { name: name.into() });
        }
        if export.kind != ExternalKind::Func {
            return Ok(());
        }
        let method = MethodKind::ALL.into_iter().find_map(|kind| Some((kind, name.strip_prefix(kind.prefix())?)));
        if let Some((kind, method)) = method {
            self.name_bytes += method.len();
            if self.methods.insert(method.into(), kind).is_some() {
                return Err(ModuleError::DuplicateMethod { name: method.into() });
            }
        } else if ENTRY_POINTS.contains(&name) {
            self.entry_points.insert(name.into());
        } else if name.starts_with("canister_") {
            return Err(ModuleError::UnknownEntryPoint { name: name.into() });
        } else {
            return Ok(());
        }
        let found = types[types.core_function_at(export.index)].unwrap_func();
        if !found.params().is_empty() || !found.results().is_empty() {
            return Err(ModuleError::EntryPointSignature { name: name.into(), found: describe(found) });
        }
        Ok(())
    }

    /// Checks the totals.
    pub(super) fn finish(&self) -> Result<(), ModuleError> {
        limits::at_most("exported methods", self.methods.len(), limits::METHODS)?;
        limits::at_most("bytes of method names", self.name_bytes, limits::METHOD_NAME_BYTES)
    }
}
