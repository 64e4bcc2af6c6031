//! The embedded table is whole and is looked up by variant.

use super::*;

#[test]
fn every_row_names_an_operator_of_the_parser() {
    let names: Vec<&str> = csv_rows().map(|(name, _)| name).filter(|name| !name.starts_with('_')).collect();
    assert_eq!(names.len(), 440);
    for name in names {
        assert!(OPERATOR_NAMES.contains(&name), "{name} is not an operator of the parser");
    }
}

#[test]
fn every_row_is_well_formed() {
    for line in OPERATOR_CSV.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), 3, "{line}");
        assert!(cells[1..].iter().all(|cell| cell.parse::<u64>().is_ok()), "{line}");
    }
}

#[test]
fn looks_up_costs_by_variant() {
    let memarg = wasmparser::MemArg { align: 0, max_align: 0, offset: 0, memory: 0 };
    for (operator, cost) in [
        (Operator::Nop, 1),
        (Operator::End, 0),
        (Operator::Loop { blockty: wasmparser::BlockType::Empty }, 0),
        (Operator::If { blockty: wasmparser::BlockType::Empty }, 2),
        (Operator::Call { function_index: 7 }, 5),
        (Operator::CallIndirect { type_index: 0, table_index: 0 }, 10),
        (Operator::ReturnCallIndirect { type_index: 0, table_index: 0 }, 60),
        (Operator::I32DivS, 10),
        (Operator::F32Max, 18),
        (Operator::I32TruncF32S, 20),
        (Operator::GlobalGet { global_index: 0 }, 2),
        (Operator::V128Load { memarg }, 1),
        (Operator::I32x4DotI16x8S, 1),
        (Operator::I32x4ExtMulHighI16x8S, 2),
        (Operator::F32x4Max, 4),
        (Operator::MemoryGrow { mem: 0 }, 300),
        (Operator::MemoryFill { mem: 0 }, 100),
    ] {
        assert_eq!(operator_cost(&operator), cost, "{operator:?}");
    }
}

#[test]
fn an_unlisted_operator_costs_one() {
    assert!(!csv_rows().any(|(name, _)| name == "AtomicFence"));
    assert_eq!(operator_cost(&Operator::AtomicFence), DEFAULT_OPERATOR_COST);
}

#[test]
fn system_calls_cost_fixed_and_per_byte() {
    let cost = |name: &str, bytes| system_function(name).map(|function| function.cost(bytes));
    assert_eq!(cost("msg_reply", 0), Some(500));
    assert_eq!(cost("msg_reply_data_append", 1 << 20), Some(52_429_300));
    assert_eq!(cost("stable64_read", 100), Some(120));
    assert_eq!(cost("performance_counter", 0), Some(200));
    assert_eq!(cost("no_such_function", 0), None);
    assert_eq!(log_cost(100, 4096, 40), 200 + 2_000);
}

#[test]
fn page_charges_follow_the_profile() {
    let dmt = PageCharges::default();
    assert_eq!(dmt.heap.total(dmt.unit, 0, false), 80_000);
    assert_eq!(dmt.heap.total(dmt.unit, dmt.unit, false), 160_000);
    assert_eq!(dmt.heap.total(dmt.unit, dmt.unit, true), 80_000);
    assert_eq!(PageCharges::LEGACY.heap.total(16, 16, false), 16_000);
    assert_eq!(PageCharges::by_name("none"), Some(PageCharges::NONE));
    assert_eq!(PageCharges::by_name("unknown"), None);
}
