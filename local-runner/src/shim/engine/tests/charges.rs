//! Instruction charges, computed by hand from the cost table.

use super::*;

#[test]
fn straight_code_costs_its_operators_and_one_for_the_function() {
    assert_eq!(cost(""), 1);
    assert_eq!(cost("nop nop"), 1 + 2);
    assert_eq!(cost("(drop (i32.add (i32.const 1) (i32.const 2)))"), 1 + 4);
    assert_eq!(cost("(drop (f32.max (f32.const 1) (f32.const 2)))"), 1 + 2 + 18 + 1);
    assert_eq!(cost("block block nop end end"), 1 + 1);
}

#[test]
fn only_the_branch_taken_is_charged() {
    let body = |condition: u8| format!("(if (i32.const {condition}) (then nop nop nop) (else nop))");
    // const 1, if 2; then three or one nop; nothing for else and end.
    assert_eq!(cost(&body(1)), 1 + 3 + 3);
    assert_eq!(cost(&body(0)), 1 + 3 + 1);
}

#[test]
fn a_taken_branch_skips_the_rest_of_the_block() {
    // br 2; the three nops after it are a block of their own.
    assert_eq!(cost("block br 0 nop nop nop end nop"), 1 + 2 + 1);
    assert_eq!(cost("block i32.const 0 br_if 0 nop nop nop end nop"), 1 + 1 + 2 + 3 + 1);
    assert_eq!(cost("block block i32.const 1 br_table 0 1 end nop nop end nop"), 1 + 1 + 2 + 1);
    assert_eq!(cost("nop return nop nop"), 1 + 1 + 1);
}

#[test]
fn a_loop_costs_its_body_each_time() {
    let loops = |n: u32| {
        cost(&format!(
            "(local $i i32) (local.set $i (i32.const {n}))
             (loop $again (local.tee $i (i32.sub (local.get $i) (i32.const 1))) (br_if $again))"
        ))
    };
    // Before: const, set. Body: get, const, sub, tee, br_if 2.
    for n in [1, 2, 100] {
        assert_eq!(loops(n), 1 + 2 + 6 * u64::from(n));
    }
}

#[test]
fn calls_cost_the_operator_and_the_callee() {
    assert_eq!(cost("call $empty"), 1 + 5 + 1);
    assert_eq!(cost("(call_indirect (type $void) (i32.const 0))"), 1 + 1 + 10 + 1);
    assert_eq!(cost("return_call $empty"), 1 + 3 + 1);
    assert_eq!(cost("(return_call_indirect (type $void) (i32.const 0))"), 1 + 1 + 60 + 1);
}

#[test]
fn bulk_operators_cost_one_per_byte() {
    assert_eq!(cost("(memory.fill (i32.const 0) (i32.const 7) (i32.const 1000))"), 1 + 3 + 100 + 1000);
    assert_eq!(cost("(memory.copy (i32.const 0) (i32.const 7) (i32.const 0))"), 1 + 3 + 100);
    assert_eq!(cost("(drop (memory.grow (i32.const 1)))"), 1 + 1 + 300 + 1);
    assert_eq!(cost("(drop (memory.size))"), 1 + 20 + 1);
}

#[test]
fn a_size_too_large_for_the_memory_is_charged_before_it_traps() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m")
             (memory.fill (i32.const 0) (i32.const 7) (i32.const 100000))))"#,
    );
    let execution = canister.call("m");
    assert_eq!(execution.result, Err(Trap::Wasm(WasmTrap::HeapOutOfBounds)));
    assert_eq!(execution.instructions, 1 + 3 + 100 + 100_000);
    canister.options.instructions = 100_103;
    assert_eq!(canister.call("m").result, Err(Trap::InstructionLimit { limit: 100_103 }));
}

#[test]
fn the_largest_size_operand_does_not_wrap_the_counter() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m")
             (memory.fill (i32.const 0) (i32.const 7) (i32.const -1))))"#,
    );
    assert_eq!(canister.call("m").result, Err(Trap::InstructionLimit { limit: 1_000_000 }));
    canister.options.instructions = 5_000_000_000;
    assert_eq!(canister.call("m").result, Err(Trap::Wasm(WasmTrap::HeapOutOfBounds)));
    canister.options.instructions = u64::MAX;
    let execution = canister.call("m");
    assert_eq!(execution.result, Err(Trap::Wasm(WasmTrap::HeapOutOfBounds)));
    assert_eq!(execution.instructions, 1 + 3 + 100 + 0xffff_ffff);
}

#[test]
fn passive_data_is_copied_and_charged() {
    let mut canister = Canister::new(
        r#"(module (memory 1)
             (data $active (i32.const 8) "active")
             (data $passive "passive")
             (func (export "canister_update m") (memory.init $passive (i32.const 20) (i32.const 1) (i32.const 4)))
             (func (export "canister_update again") (memory.init $active (i32.const 0) (i32.const 0) (i32.const 1))))"#,
    );
    assert_eq!(canister.commit("m").instructions, 1 + 3 + 100 + 4);
    let heap = canister.heap();
    assert_eq!((&heap[8..14], &heap[20..24]), (&b"active"[..], &b"assi"[..]));
    let execution = canister.call("again");
    assert_eq!(execution.result, Err(Trap::Wasm(WasmTrap::HeapOutOfBounds)), "an active segment is empty once applied");
}

#[test]
fn exactly_the_limit_is_allowed_and_one_less_is_not() {
    let wat = r#"(module (func (export "canister_update m") (local $i i32)
        (local.set $i (i32.const 10))
        (loop $again (local.tee $i (i32.sub (local.get $i) (i32.const 1))) (br_if $again))))"#;
    let limited = |limit| Canister::new(wat).with(|options| options.instructions = limit).call("m");
    let execution = limited(63);
    assert_eq!((execution.result, execution.instructions), (Ok(()), 63));
    let execution = limited(62);
    assert_eq!((execution.result, execution.instructions), (Err(Trap::InstructionLimit { limit: 62 }), 62));
    let execution = limited(0);
    assert_eq!((execution.result, execution.instructions), (Err(Trap::InstructionLimit { limit: 0 }), 0));
}

#[test]
fn code_between_two_tests_may_overshoot() {
    // The branch's nops are not tested, as on the platform: the message ends before the next function or loop.
    let wat = r#"(module (func (export "canister_update m") (if (i32.const 1) (then nop nop nop nop))))"#;
    let execution = Canister::new(wat).with(|options| options.instructions = 5).call("m");
    assert_eq!((execution.result, execution.instructions), (Ok(()), 5));
}

#[test]
fn a_real_unreachable_is_told_from_running_out() {
    let wat = r#"(module (func (export "canister_update m") (if (i32.const 1) (then nop nop nop nop)) unreachable))"#;
    let execution = Canister::new(wat).with(|options| options.instructions = 5).call("m");
    assert_eq!(execution.result, Err(Trap::Wasm(WasmTrap::Unreachable)));
}

#[test]
fn an_endless_loop_ends() {
    let wat = r#"(module (func (export "canister_update m") (loop $again br $again)))"#;
    let mut canister = Canister::new(wat);
    let execution = canister.call("m");
    assert_eq!(
        (execution.result, execution.instructions),
        (Err(Trap::InstructionLimit { limit: 1_000_000 }), 1_000_000)
    );
    let wat = r#"(module (func $f (export "canister_update m") (return_call $f)))"#;
    assert_eq!(Canister::new(wat).call("m").result, Err(Trap::InstructionLimit { limit: 1_000_000 }));
}

#[test]
fn system_calls_charge_through_the_same_counter() {
    let wat = r#"(module
        (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
        (func (export "canister_update m") nop (drop (call $counter (i32.const 0))) (drop (call $counter (i32.const 0)))))"#;
    let mut canister = Canister::new(wat);
    let execution = canister.commit("m");
    // The whole block is charged first: 1 + nop, const, call 5, drop, const, call 5, drop.
    assert_eq!(execution.state.values, [16 + 200, 16 + 400]);
    assert_eq!(execution.instructions, 416);
    canister.options.instructions = 416;
    assert_eq!(canister.call("m").result, Ok(()));
    canister.options.instructions = 415;
    let execution = canister.call("m");
    assert_eq!(execution.result, Err(Trap::InstructionLimit { limit: 415 }));
    assert_eq!(execution.state.values, [216], "the host's state survives the failure");
}

const PAGES: &str = r#"(module
    (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
    (import "ic0" "msg_arg_data_copy" (func $fill (param i32 i32 i32)))
    (memory 8)
    (func (export "canister_update read") (drop (i32.load (i32.const 65536))) (drop (i32.load (i32.const 70000))))
    (func (export "canister_update write") (i32.store (i32.const 65536) (i32.const 1)))
    (func (export "canister_update both") (drop (i32.load (i32.const 0))) (i32.store (i32.const 0) (i32.const 1))
        (drop (call $counter (i32.const 0))))
    (func (export "canister_update straddle") (i64.store (i32.const 131070) (i64.const -1)))
    (func (export "canister_update bulk") (memory.fill (i32.const 65535) (i32.const 1) (i32.const 65538)))
    (func (export "canister_update copy") (memory.copy (i32.const 0) (i32.const 200000) (i32.const 4)))
    (func (export "canister_update host") (call $fill (i32.const 65530) (i32.const 3) (i32.const 10)))
    (func (export "canister_update simd") (v128.store (i32.const 0) (v128.load (i32.const 400000)))))"#;

#[test]
fn page_counts_are_exact() {
    let mut canister = Canister::new(PAGES).with(|options| options.charges = PageCharges::DMT_2026_07);
    let mut check = |method: &str, accessed: u64, written: u64, operators: u64| {
        let execution = canister.commit(method);
        assert_eq!((execution.pages.accessed, execution.pages.written), (accessed, written), "{method}");
        assert_eq!(execution.page_charge, 80_000 * (accessed + written), "{method}");
        assert_eq!(execution.instructions, operators + execution.page_charge, "{method}");
    };
    for _ in 0..2 {
        check("read", 1, 0, 1 + 6);
        check("write", 1, 1, 1 + 3);
        check("both", 1, 1, 1 + 3 + 3 + 7 + 200);
        check("straddle", 2, 2, 1 + 3);
        check("bulk", 3, 3, 1 + 3 + 100 + 65_538);
        check("copy", 2, 1, 1 + 3 + 100 + 4);
        check("host", 2, 2, 1 + 3 + 5);
        check("simd", 2, 1, 1 + 4);
    }
}

#[test]
fn the_performance_counter_includes_pages() {
    let mut canister = Canister::new(PAGES).with(|options| options.charges = PageCharges::DMT_2026_07);
    assert_eq!(canister.commit("both").state.values, [14 + 160_000 + 200]);
}

#[test]
fn queries_pay_for_access_only_and_profiles_differ() {
    let charge = |query, charges| {
        let mut canister = Canister::new(PAGES).with(|options| {
            options.query = query;
            options.charges = charges;
        });
        canister.call("copy").page_charge
    };
    assert_eq!(charge(false, PageCharges::DMT_2026_07), 240_000);
    assert_eq!(charge(true, PageCharges::DMT_2026_07), 160_000);
    assert_eq!(charge(false, PageCharges::LEGACY), 16_000);
    assert_eq!(charge(false, PageCharges::NONE), 0);
}

#[test]
fn page_charges_count_towards_the_limit() {
    let mut canister = Canister::new(PAGES).with(|options| {
        options.charges = PageCharges::DMT_2026_07;
        options.instructions = 160_004;
    });
    assert_eq!(canister.call("write").result, Ok(()));
    canister.options.instructions = 160_003;
    let execution = canister.call("write");
    assert_eq!(execution.result, Err(Trap::InstructionLimit { limit: 160_003 }));
    assert_eq!(execution.instructions, 160_003);
}

#[test]
fn the_largest_operation_is_reported_with_its_pages() {
    let mut canister = Canister::new(PAGES).with(|options| options.charges = PageCharges::DMT_2026_07);
    assert_eq!(canister.commit("bulk").largest_operation, 65_538 + 3 * 160_000);
    assert_eq!(canister.commit("copy").largest_operation, 4 + 240_000);
    assert_eq!(
        canister.commit("both").largest_operation,
        200 + 160_000,
        "pages of the message bound those of the call"
    );
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m")
             (memory.fill (i32.const 0) (i32.const 0) (i32.const 300)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 7))))"#,
    );
    assert_eq!(canister.commit("m").largest_operation, 300);
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m") (memory.fill (i32.const 0) (i32.const 0) (i32.const -1))))"#,
    )
    .with(|options| options.instructions = 5_000_000_000);
    assert_eq!(canister.call("m").largest_operation, 0xffff_ffff);
}
