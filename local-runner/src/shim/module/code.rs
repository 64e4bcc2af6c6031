//! Checks on function bodies: refused operators and complexity.

use std::sync::OnceLock;

use wasmparser::{FunctionBody, Operator};

use super::{ModuleError, limits};
use crate::shim::costs::{OPERATOR_NAMES, OperatorTable, operator_position};

/// Operators that stand for more than one unit of compile effort (dfinity/ic `validation.rs`).
const COMPLEXITY: &[(u64, &str)] = &[
    (50, "Block Loop If Br BrIf BrTable Call CallIndirect MemoryGrow TableGrow"),
    (14, "TableGet"),
    (8, "RefFunc"),
    (7, "TableSet"),
    (6, "RefIsNull"),
    (5, "TableFill I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U I64ExtendI32S I64ExtendI32U"),
    (5, "I64TruncF32S I64TruncF32U I64TruncF64S I64TruncF64U F32ConvertI32S F32ConvertI32U F32ConvertI64S"),
    (5, "F32ConvertI64U F32DemoteF64 F64ConvertI32S F64ConvertI32U F64ConvertI64S F64ConvertI64U"),
    (4, "F32Neg F32Abs F64Neg F64Abs TableCopy TableInit MemoryCopy"),
    (3, "F32Copysign F64Copysign F64Eq I32RemU I32RemS I64RemU I64RemS I32DivU I32DivS I64DivU I64DivS MemoryFill"),
    (3, "I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U"),
    (3, "I64Load8S I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U"),
    (3, "I32TruncSatF32S I32TruncSatF32U I32TruncSatF64S I32TruncSatF64U"),
    (3, "I64TruncSatF32S I64TruncSatF32U I64TruncSatF64S I64TruncSatF64U"),
    (2, "GlobalGet I32Popcnt I64Popcnt Select MemorySize"),
    (2, "I32Store I32Store16 I32Store8 I64Store I64Store32 I64Store16 I64Store8 F64Store F32Store"),
    (2, "I32Eqz I32Eq I32Ne I32LtS I32LtU I32GtS I32GtU I32LeS I32LeU I32GeS I32GeU"),
    (2, "I64Eqz I64Eq I64Ne I64LtS I64LtU I64GtS I64GtU I64LeS I64LeU I64GeS I64GeU"),
    (2, "F32Eq F32Ne F32Lt F32Gt F32Le F32Ge F64Ne F64Lt F64Gt F64Le F64Ge"),
    (2, "F32Ceil F64Ceil F32Floor F64Floor F32Sqrt F64Sqrt F32Trunc F64Trunc"),
    (2, "I32ReinterpretF32 I64ReinterpretF64 F32ReinterpretI32 F64ReinterpretI64 I32WrapI64 F64PromoteF32"),
    (2, "I32Extend8S I32Extend16S I64Extend8S I64Extend16S I64Extend32S"),
];

fn complexity(operator: &Operator<'_>) -> u64 {
    static TABLE: OnceLock<OperatorTable> = OnceLock::new();
    TABLE
        .get_or_init(|| {
            let named = COMPLEXITY.iter().flat_map(|(value, names)| names.split(' ').map(|name| (name, *value)));
            OperatorTable::new(named, 1)
        })
        .get(operator)
}

/// Table operators would change state that does not survive the message, so the platform refuses them.
fn is_refused(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableGrow { .. }
            | Operator::TableSet { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

/// Checks one function body; `function` is its index among the module's own functions.
pub(super) fn check_body(function: usize, body: &FunctionBody<'_>) -> Result<(), ModuleError> {
    let mut found = 0;
    for operator in body.get_operators_reader()? {
        let operator = operator?;
        if is_refused(&operator) {
            let name = OPERATOR_NAMES.get(operator_position(&operator)).copied().unwrap_or("an operator");
            return Err(ModuleError::UnsupportedOperator { function, operator: name });
        }
        found += complexity(&operator);
    }
    let limit = limits::FUNCTION_COMPLEXITY;
    if found > limit {
        return Err(ModuleError::FunctionTooComplex { function, found, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_complexity_names_an_operator_once() {
        let names: Vec<&str> = COMPLEXITY.iter().flat_map(|(_, names)| names.split(' ')).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(OPERATOR_NAMES.contains(name), "{name}");
            assert!(!names[..index].contains(name), "{name} is listed twice");
        }
        assert_eq!(complexity(&Operator::MemoryGrow { mem: 0 }), 50);
        assert_eq!(complexity(&Operator::I32x4Add), 1);
    }
}
