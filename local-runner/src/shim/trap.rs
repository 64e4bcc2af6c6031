//! Why an execution failed, with the platform's error code and text for each reason.
//!
//! Host functions return these as errors; the engine adds the ones that WebAssembly itself raises. Texts follow
//! dfinity/ic `rs/interfaces/src/execution_environment/errors.rs`, without the canister's name in front.

/// A reason for which an execution is rolled back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trap {
    /// WebAssembly code trapped.
    #[error("Canister trapped: {0}")]
    Wasm(WasmTrap),
    /// The canister called `ic0.trap`; Rust panics end here.
    #[error("Canister called `ic0.trap` with message: '{0}'")]
    Called(String),
    /// The instruction limit of this kind of message was exceeded.
    #[error("Canister exceeded the limit of {limit} instructions for single message execution.")]
    InstructionLimit {
        /// The limit in instructions.
        limit: u64,
    },
    /// Too many stable memory pages were accessed or written; the text says which limit.
    #[error("Canister exceeded memory access limits: {0}")]
    MemoryAccessLimit(String),
    /// A system call was made where it is not allowed, or with arguments that are not allowed.
    #[error("Canister violated contract: {0}")]
    ContractViolation(String),
    /// The heap grew beyond the canister's `wasm_memory_limit` setting.
    #[error(
        "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage was {bytes} \
         bytes. If the canister reaches 4GiB, then it may stop functioning and may become unrecoverable. Please reach \
         out to the canister owner to investigate the reason for the increased memory usage. It might be necessary to \
         move data from the Wasm memory to the stable memory. If such high Wasm memory usage is expected and safe, \
         then the developer can increase the Wasm memory limit in the canister settings."
    )]
    WasmMemoryLimit {
        /// The setting, in bytes.
        limit: u64,
        /// The size that was asked for, in bytes.
        bytes: u64,
    },
    /// A callback names a function that the table does not hold.
    #[error("Canister requested to invoke a non-existent Wasm function {index} from table 0")]
    NoSuchFunction {
        /// Table index.
        index: u32,
    },
    /// Cycles were to be sent that the canister does not have.
    #[error("Canister is out of cycles: {needed} cycles are needed, {available} are available")]
    OutOfCycles {
        /// Cycles asked for.
        needed: u128,
        /// Cycles that may be spent.
        available: u128,
    },
    /// The shim itself could not go on; not a fault of the canister.
    #[error("The shim could not run this message: {0}")]
    Shim(String),
}

impl Trap {
    /// The platform's numeric error code, shown as `IC0` and three digits.
    pub fn error_code(&self) -> u32 {
        match self {
            Self::Wasm(_) => 502,
            Self::Called(_) => 503,
            Self::InstructionLimit { .. } => 522,
            Self::MemoryAccessLimit(_) => 524,
            Self::ContractViolation(_) => 504,
            Self::WasmMemoryLimit { .. } => 539,
            Self::NoSuchFunction { .. } => 513,
            Self::OutOfCycles { .. } => 207,
            Self::Shim(_) => 521,
        }
    }
}

/// What WebAssembly code did to trap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WasmTrap {
    /// Access outside the linear memory.
    #[error("heap out of bounds")]
    HeapOutOfBounds,
    /// Access outside the stable memory.
    #[error("stable memory out of bounds")]
    StableOutOfBounds,
    /// A 32-bit stable memory function was used on more than 4 GiB.
    #[error("32 bit stable memory api used on a memory larger than 4GB")]
    StableTooBigFor32Bit,
    /// A 64-bit cycles function met an amount that needs more bits.
    #[error("cycles amount exceeds 64-bit representation")]
    CyclesTooBigFor64Bit,
    /// Division or remainder by zero.
    #[error("integer division by 0")]
    DivisionByZero,
    /// The `unreachable` operator.
    #[error("unreachable")]
    Unreachable,
    /// Calls nested too deeply.
    #[error("stack overflow")]
    StackOverflow,
    /// Access outside the function table.
    #[error("table out of bounds")]
    TableOutOfBounds,
    /// Anything else; the platform prints only `unknown`, the shim adds the engine's reason.
    #[error("unknown ({0})")]
    Other(String),
}

impl From<wasmtime::Trap> for WasmTrap {
    fn from(trap: wasmtime::Trap) -> Self {
        match trap {
            wasmtime::Trap::StackOverflow => Self::StackOverflow,
            wasmtime::Trap::MemoryOutOfBounds => Self::HeapOutOfBounds,
            wasmtime::Trap::TableOutOfBounds => Self::TableOutOfBounds,
            wasmtime::Trap::IntegerDivisionByZero => Self::DivisionByZero,
            wasmtime::Trap::UnreachableCodeReached => Self::Unreachable,
            other => Self::Other(other.to_string().trim_start_matches("wasm trap: ").to_string()),
        }
    }
}
