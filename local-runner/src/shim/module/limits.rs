//! How large the parts of a module may be (dfinity/ic `rs/config/src/embedders.rs` and `validation.rs`).

use super::ModuleError;

/// Bytes of the uncompressed module.
pub const MODULE_BYTES: usize = 100 << 20;
/// Bytes of the code section.
pub const CODE_BYTES: usize = 10 << 20;
/// Functions defined by the module.
pub const FUNCTIONS: usize = 50_000;
/// Globals defined by the module.
pub const GLOBALS: usize = 1_000;
/// Exported update, query and composite query methods together.
pub const METHODS: usize = 1_000;
/// Bytes of their names together.
pub const METHOD_NAME_BYTES: usize = 20_000;
/// Metadata sections (`icp:public`, `icp:private`).
pub const METADATA_SECTIONS: usize = 16;
/// Bytes of their names and contents together.
pub const METADATA_BYTES: usize = 1 << 20;
/// Weighted operators of one function. The platform's limit of as many unweighted ones follows: none weighs less than 1.
pub const FUNCTION_COMPLEXITY: u64 = 1_000_000;
/// Tables.
pub const TABLES: usize = 1;
/// Elements of the table.
pub const TABLE_ELEMENTS: usize = 1_000_000;

/// Checks one count.
pub(super) fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), ModuleError> {
    if found > limit { Err(ModuleError::TooMany { what, found, limit }) } else { Ok(()) }
}
