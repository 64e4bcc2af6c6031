//! Instruments one function body as the platform does.
//!
//! A body is cut into blocks of operators that run together; each block subtracts its cost from the counter before it
//! runs. Only where code can be entered again and again, at the start of a function and of a loop, the counter is
//! also tested. A block is charged in full even if it traps half-way, and an execution may overshoot its limit by the
//! longest path between two tests. Bulk operators charge their size operand just before they run, with a test.
//! The rules and their order are those of dfinity/ic `rs/embedders/src/wasm_utils/instrumentation.rs`.

use wasm_encoder::{BlockType, Encode, Instruction};
use wasmparser::{FunctionBody, Operator};

use super::Injected;
use crate::shim::costs::{FUNCTION_ENTRY_COST, operator_cost};
use crate::shim::module::ModuleError;

/// Encoded type of the local that holds a size operand.
const I32: u8 = 0x7f;

pub(super) struct Body {
    /// Locals and operators, without length.
    pub(super) bytes: Vec<u8>,
    /// Operators the platform would compile for this body.
    pub(super) operators: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// Cost of the block that starts here.
    Block { cost: u64, tested: bool },
    /// The i32 on top of the stack is the cost.
    Operand,
}

/// Where to insert a charge: an offset in the module, before the operator there.
#[derive(Debug, Clone, Copy)]
struct Point {
    offset: usize,
    charge: Charge,
}

/// Operators the platform inserts for a charge.
fn inserted_operators(charge: Charge) -> u64 {
    match charge {
        Charge::Block { tested: false, .. } => 4,
        Charge::Block { tested: true, .. } => 10,
        Charge::Operand => 3,
    }
}

/// Whether the cost of a block is closed after this operator.
fn ends_block(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::End
            | Operator::Return
            | Operator::Unreachable
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
    )
}

/// Whether the operator's last operand is a number of bytes or elements that is charged one by one.
fn has_size_operand(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

struct Plan {
    points: Vec<Point>,
    operators: u64,
    bulk: bool,
}

fn plan(body: &FunctionBody<'_>) -> Result<Plan, ModuleError> {
    let mut reader = body.get_operators_reader()?;
    let mut points = Vec::new();
    let (mut operators, mut bulk) = (0, false);
    let (mut start, mut cost, mut tested) = (reader.original_position(), FUNCTION_ENTRY_COST, true);
    while !reader.eof() {
        let (operator, offset) = reader.read_with_offset()?;
        operators += 1;
        cost += operator_cost(&operator);
        if has_size_operand(&operator) {
            bulk = true;
            points.push(Point { offset, charge: Charge::Operand });
        }
        if matches!(operator, Operator::MemoryGrow { .. }) {
            operators += 3;
        }
        if ends_block(&operator) {
            points.push(Point { offset: start, charge: Charge::Block { cost, tested } });
            (start, cost, tested) = (reader.original_position(), 0, matches!(operator, Operator::Loop { .. }));
        }
    }
    points.retain(|point| !matches!(point.charge, Charge::Block { cost: 0, tested: false }));
    points.sort_by_key(|point| point.offset);
    operators += points.iter().map(|point| inserted_operators(point.charge)).sum::<u64>();
    Ok(Plan { points, operators, bulk })
}

/// Instruments a body of a function with `params` parameters.
pub(super) fn instrument(body: &FunctionBody<'_>, params: u32, injected: Injected) -> Result<Body, ModuleError> {
    let plan = plan(body)?;
    let first = body.get_operators_reader()?.original_position();
    let base = body.range().start;
    let source = body.as_bytes();
    let mut bytes = Vec::with_capacity(source.len() * 2);
    let size_local = write_locals(body, params, plan.bulk, &mut bytes)?;
    let mut at = first - base;
    for point in &plan.points {
        let next = point.offset - base;
        bytes.extend_from_slice(&source[at..next]);
        at = next;
        write_charge(point.charge, size_local, injected, &mut bytes);
    }
    bytes.extend_from_slice(&source[at..]);
    Ok(Body { bytes, operators: plan.operators })
}

/// Copies the declarations of locals, adding one i32 if `extra`; returns its index.
fn write_locals(body: &FunctionBody<'_>, params: u32, extra: bool, out: &mut Vec<u8>) -> Result<u32, ModuleError> {
    let mut locals = body.get_locals_reader()?;
    let groups = locals.get_count();
    let entries = locals.original_position() - body.range().start;
    let mut index = params;
    for _ in 0..groups {
        index += locals.read()?.0;
    }
    let end = locals.original_position() - body.range().start;
    (groups + u32::from(extra)).encode(out);
    out.extend_from_slice(&body.as_bytes()[entries..end]);
    if extra {
        1u32.encode(out);
        out.push(I32);
    }
    Ok(index)
}

fn write_charge(charge: Charge, size_local: u32, injected: Injected, out: &mut Vec<u8>) {
    let Injected { counter, largest, .. } = injected;
    let mut write = |instruction: Instruction<'_>| instruction.encode(out);
    let tested = match charge {
        Charge::Block { cost, tested } => {
            write(Instruction::GlobalGet(counter));
            write(Instruction::I64Const(cost as i64));
            tested
        }
        Charge::Operand => {
            write(Instruction::LocalTee(size_local));
            for instruction in keep_largest(size_local, largest) {
                write(instruction);
            }
            write(Instruction::GlobalGet(counter));
            write(Instruction::LocalGet(size_local));
            write(Instruction::I64ExtendI32U);
            true
        }
    };
    // No underflow: the counter is tested at every function and loop start and after every size operand, and what is
    // subtracted between two tests (operators of one function body, or less than 2^32) is far from 2^63.
    write(Instruction::I64Sub);
    write(Instruction::GlobalSet(counter));
    if tested {
        write_test(injected, out);
    }
}

/// Sets a global to a local if that is larger.
fn keep_largest(local: u32, global: u32) -> [Instruction<'static>; 7] {
    [
        Instruction::LocalGet(local),
        Instruction::GlobalGet(global),
        Instruction::I32GtU,
        Instruction::If(BlockType::Empty),
        Instruction::LocalGet(local),
        Instruction::GlobalSet(global),
        Instruction::End,
    ]
}

/// Ends the execution if the counter is negative.
///
/// Not by a call: even one that is never taken makes the compiler spill vector registers in loops.
fn write_test(injected: Injected, out: &mut Vec<u8>) {
    for instruction in [
        Instruction::GlobalGet(injected.counter),
        Instruction::I64Const(0),
        Instruction::I64LtS,
        Instruction::If(BlockType::Empty),
        Instruction::I32Const(1),
        Instruction::GlobalSet(injected.exhausted),
        Instruction::Unreachable,
        Instruction::End,
    ] {
        instruction.encode(out);
    }
}
