//! Reasons for which a module is refused, one variant each.

/// Why the platform would not install a module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The gzip stream is damaged.
    #[error("the module is not a valid gzip stream; compress it again: {0}")]
    Gzip(std::io::Error),
    /// Too many bytes after decompression.
    #[error("the module has more than {limit} bytes uncompressed; make it smaller")]
    TooLarge {
        /// Most bytes allowed.
        limit: usize,
    },
    /// Too many bytes of code.
    #[error("the code section has {bytes} bytes, more than {limit}; make the code smaller")]
    CodeTooLarge {
        /// Bytes of the code section.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A 64-bit memory or table.
    #[error("the shim does not support 64-bit memories; build the canister for wasm32-unknown-unknown")]
    Memory64,
    /// Not valid WebAssembly of the accepted proposals.
    #[error("the module is not valid WebAssembly for the platform, at byte {offset}: {message}")]
    Invalid {
        /// Offset in the uncompressed module.
        offset: usize,
        /// What the validator found.
        message: String,
    },
    /// An import from another module than `ic0`.
    #[error("import `{name}` from `{module}` is not allowed; canisters import functions from `ic0` only")]
    ImportModule {
        /// Module imported from.
        module: String,
        /// Name imported.
        name: String,
    },
    /// `ic0` has no such function.
    #[error("`ic0` has no function `{name}`; check the name or the version of the canister library")]
    UnknownImport {
        /// Name imported.
        name: String,
    },
    /// A function of `ic0` imported with another type.
    #[error("`ic0.{name}` is imported with type {found}, expected {expected}; build for wasm32-unknown-unknown")]
    ImportSignature {
        /// Name imported.
        name: String,
        /// The platform's type.
        expected: String,
        /// The module's type.
        found: String,
    },
    /// An export whose name the platform uses itself.
    #[error("export `{name}` is reserved by the platform; rename it")]
    ReservedExport {
        /// Name exported.
        name: String,
    },
    /// An export that starts with `canister_` and is no entry point.
    #[error("export `{name}` starts with `canister_` but is no entry point the platform knows; rename it")]
    UnknownEntryPoint {
        /// Name exported.
        name: String,
    },
    /// An entry point with parameters or results.
    #[error("entry point `{name}` has type {found}, expected () -> ()")]
    EntryPointSignature {
        /// Name exported.
        name: String,
        /// The module's type.
        found: String,
    },
    /// One method name as update and as query, for example.
    #[error("method `{name}` is exported more than once under different kinds; keep one")]
    DuplicateMethod {
        /// Method name.
        name: String,
    },
    /// More of something than allowed.
    #[error("the module has {found} {what}, more than {limit}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Most allowed.
        limit: usize,
    },
    /// A custom section whose name starts with `icp:` and goes on in another way than the two known ones.
    #[error("custom section `{name}` must be named `icp:public NAME` or `icp:private NAME`")]
    CustomSectionName {
        /// Full section name.
        name: String,
    },
    /// Two metadata sections of the same name.
    #[error("metadata section `{name}` exists twice; keep one")]
    DuplicateCustomSection {
        /// Name without prefix.
        name: String,
    },
    /// A global of a reference type.
    #[error("global {index} has type {found}; canisters may use only i32, i64, f32, f64 and v128 globals")]
    GlobalType {
        /// Index of the global.
        index: usize,
        /// Its type.
        found: String,
    },
    /// An active data segment whose offset is computed.
    #[error("data segment {index} has an offset that is not a single i32.const")]
    DataOffset {
        /// Index of the segment.
        index: usize,
    },
    /// An active data segment that does not fit.
    #[error("data segment {index} covers bytes {start} to {end}, but the memory starts with {size} bytes")]
    DataOutside {
        /// Index of the segment.
        index: usize,
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Initial size of the memory.
        size: u64,
    },
    /// An operator the platform refuses although it belongs to an accepted proposal.
    #[error("function {function} uses {operator}, an unsupported instruction")]
    UnsupportedOperator {
        /// Index among the module's own functions.
        function: usize,
        /// Name of the operator.
        operator: &'static str,
    },
    /// A function that would take too long to compile.
    #[error("function {function} has complexity {found}, more than {limit}; split it")]
    FunctionTooComplex {
        /// Index among the module's own functions.
        function: usize,
        /// Weighted number of operators.
        found: u64,
        /// Most allowed.
        limit: u64,
    },
}

impl From<wasmparser::Error> for ModuleError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid { offset: error.offset(), message: error.message().to_string() }
    }
}
