//! What survives an execution and what does not.

use super::*;

#[test]
fn a_trap_takes_back_memory_growth_and_globals() {
    let mut canister = Canister::new(
        r#"(module (memory 2) (global $g (mut i32) (i32.const 5)) (global $v (mut v128) (v128.const i64x2 1 2))
             (data (i32.const 100) "initial")
             (func (export "canister_update good")
                (i32.store (i32.const 65536) (i32.const 77)) (global.set $g (i32.const 6))
                (global.set $v (v128.const i64x2 3 4)))
             (func (export "canister_update bad")
                (i32.store (i32.const 100) (i32.const 1)) (i32.store (i32.const 65536) (i32.const 2))
                (drop (memory.grow (i32.const 3))) (i32.store (i32.const 300000) (i32.const 3))
                (global.set $g (i32.const 9)) unreachable)
             (func (export "canister_update store")
                (i32.store (i32.const 0) (global.get $g)) (v128.store (i32.const 16) (global.get $v))
                (i32.store (i32.const 4) (memory.size))))"#,
    );
    canister.commit("good");
    let before = canister.heap();
    assert_eq!(canister.call("bad").result, Err(Trap::Wasm(WasmTrap::Unreachable)));
    assert_eq!(canister.wasm.heap_bytes(), 131_072);
    assert!(canister.heap() == before);
    canister.commit("store");
    let heap = canister.heap();
    assert_eq!((heap[0], heap[4], heap[16], heap[24]), (6, 2, 3, 4));
    assert_eq!(&heap[100..107], b"initial");
}

#[test]
fn a_rollback_takes_back_several_executions() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (global $n (mut i64) (i64.const 1))
             (func (export "canister_update step")
                (global.set $n (i64.add (global.get $n) (i64.const 1)))
                (drop (memory.grow (i32.const 1)))
                (i64.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)) (global.get $n))
                (i64.store (i32.const 0) (global.get $n))))"#,
    );
    canister.commit("step");
    let before = canister.heap();
    for _ in 0..3 {
        assert_eq!(canister.call("step").result, Ok(()));
    }
    assert_eq!(canister.heap()[0], 5);
    canister.wasm.rollback().unwrap();
    assert!(canister.heap() == before);
    canister.commit("step");
    assert_eq!((canister.heap()[0], canister.wasm.heap_bytes()), (3, 3 * 65_536));
}

#[test]
fn the_first_execution_can_be_rolled_back_to_the_initial_image() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (global $g (mut f64) (f64.const 1.5)) (data (i32.const 0) "image")
             (func (export "canister_update m") (i64.store (i32.const 0) (i64.const 0)) (global.set $g (f64.const 2)))
             (func (export "canister_update get") (f64.store (i32.const 8) (global.get $g))))"#,
    );
    assert_eq!(canister.call("m").result, Ok(()));
    canister.wasm.rollback().unwrap();
    canister.commit("get");
    let heap = canister.heap();
    assert_eq!((&heap[..5], &heap[8..16]), (&b"image"[..], &1.5f64.to_le_bytes()[..]));
}

#[test]
fn tables_are_the_same_for_every_instance_and_callbacks_go_through_them() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (table 4 funcref) (elem (i32.const 1) $callback $wrong)
             (func $callback (param i32) (i32.store (i32.const 0) (local.get 0)))
             (func $wrong (param i64)))"#,
    );
    for env in [7, 8] {
        let execution = canister.run(Entry::Callback { index: 1, env });
        assert_eq!((execution.result, execution.instructions), (Ok(()), 4));
        canister.wasm.commit().unwrap();
        assert_eq!(canister.heap()[0], env as u8);
    }
    for index in [0, 2, 3, 4, u32::MAX] {
        let execution = canister.run(Entry::Callback { index, env: 0 });
        assert_eq!(execution.result, Err(Trap::NoSuchFunction { index }));
    }
}

#[test]
fn the_start_function_runs_when_asked_and_only_then() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (start $start)
             (func $start (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
             (func (export "canister_update m")))"#,
    );
    canister.commit("m");
    assert_eq!(canister.heap()[0], 0);
    let execution = canister.run(Entry::Start);
    assert_eq!((execution.result, execution.instructions), (Ok(()), 1 + 6));
    canister.wasm.commit().unwrap();
    canister.commit("m");
    assert_eq!(canister.heap()[0], 1);
    let execution = Canister::new("(module)").run(Entry::Start);
    assert_eq!((execution.result, execution.instructions), (Ok(()), 0));
}

#[test]
fn traps_have_the_platforms_texts_and_codes() {
    for (body, text, code) in [
        ("unreachable", "Canister trapped: unreachable", 502),
        ("(drop (i32.load (i32.const 65533)))", "Canister trapped: heap out of bounds", 502),
        ("(i32.store (i32.const -1) (i32.const 0))", "Canister trapped: heap out of bounds", 502),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "Canister trapped: integer division by 0", 502),
        ("call $deep", "Canister trapped: stack overflow", 502),
        ("(call_indirect (i32.const 9))", "Canister trapped: table out of bounds", 502),
        (
            "(call_indirect (param i32) (i32.const 0) (i32.const 0))",
            "Canister trapped: unknown (indirect call type mismatch)",
            502,
        ),
        ("(call $trap (i32.const 0) (i32.const 4))", "Canister called `ic0.trap` with message: 'text'", 503),
        ("(loop br 0)", "Canister exceeded the limit of 10000000 instructions for single message execution.", 522),
    ] {
        let wat = format!(
            r#"(module (import "ic0" "trap" (func $trap (param i32 i32))) (memory 1) (data (i32.const 0) "text")
                 (table 1 funcref) (elem (i32.const 0) $deep)
                 (func $deep call $deep) (func (export "canister_update m") {body}))"#
        );
        let execution = Canister::new(&wat).with(|options| options.instructions = 10_000_000).call("m");
        let trap = execution.result.unwrap_err();
        assert_eq!((trap.to_string().as_str(), trap.error_code()), (text, code), "{body}");
    }
}

#[test]
fn a_backtrace_names_the_functions() {
    let mut canister = Canister::new(
        r#"(module (func $inner unreachable) (func $outer call $inner)
             (func $method (export "canister_update m") call $outer))"#,
    );
    assert_eq!(canister.call("m").backtrace, ["inner", "outer", "method"]);
}

#[test]
fn growing_beyond_the_setting_traps_and_beyond_the_maximum_does_not() {
    let wat = r#"(module (memory 1 8)
        (func (export "canister_update small") (drop (memory.grow (i32.const 2))))
        (func (export "canister_update large") (drop (memory.grow (i32.const 3))))
        (func (export "canister_update huge") (i32.store (i32.const 0) (memory.grow (i32.const 8)))))"#;
    let mut canister = Canister::new(wat).with(|options| options.wasm_memory_limit = Some(3 * 65_536));
    assert_eq!(canister.call("large").result, Err(Trap::WasmMemoryLimit { limit: 3 * 65_536, bytes: 4 * 65_536 }));
    assert_eq!(canister.wasm.heap_bytes(), 65_536);
    canister.commit("small");
    canister.commit("huge");
    assert_eq!((canister.wasm.heap_bytes(), &canister.heap()[..4]), (3 * 65_536, &[255u8; 4][..]));
}

#[test]
fn an_instance_takes_over_a_heap_larger_than_the_setting() {
    let wat = r#"(module (memory 4) (func (export "canister_update m") (i32.store (i32.const 0) (i32.const 1))))"#;
    let mut canister = Canister::new(wat).with(|options| options.wasm_memory_limit = Some(65_536));
    canister.commit("m");
}

#[test]
fn nan_results_are_canonical() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m")
             (f32.store (i32.const 0) (f32.add (f32.reinterpret_i32 (i32.const 0x7fa12345)) (f32.const 1)))
             (f64.store (i32.const 8) (f64.div (f64.const 0) (f64.const -0)))
             (v128.store (i32.const 16) (f32x4.mul (v128.const i32x4 0xffc00001 0x7f800000 0 0)
                (v128.const i32x4 0x3f800000 0 0 0)))))"#,
    );
    canister.commit("m");
    let heap = canister.heap();
    assert_eq!(heap[..4], 0x7fc0_0000u32.to_le_bytes());
    assert_eq!(heap[8..16], 0x7ff8_0000_0000_0000u64.to_le_bytes());
    assert_eq!(heap[16..20], 0x7fc0_0000u32.to_le_bytes());
    assert_eq!(heap[20..24], 0x7fc0_0000u32.to_le_bytes());
}

#[test]
fn simd_computes() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update m")
             (v128.store (i32.const 0) (i32x4.dot_i16x8_s (v128.const i16x8 1 2 3 4 5 6 7 8) (i16x8.splat (i32.const 10))))))"#,
    );
    // const 1, dot 1, splat 1 with its const 1, address const 1, store 1.
    assert_eq!(canister.commit("m").instructions, 1 + 6);
    assert_eq!(canister.heap()[..16], [30, 70, 110, 150].map(|v: u32| v.to_le_bytes()).concat());
}

#[test]
fn several_canisters_run_in_several_threads() {
    let wat = r#"(module (memory 1) (func (export "canister_update m") (local $i i32)
        (drop (memory.grow (i32.const 1)))
        (loop $again
            (i32.store (i32.mul (local.get $i) (i32.const 1000)) (i32.add (i32.load (i32.mul (local.get $i) (i32.const 1000))) (i32.const 1)))
            (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))))"#;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut canister = Canister::new(wat);
                for round in 1..20u8 {
                    let execution = canister.commit("m");
                    assert_eq!((execution.pages.accessed, execution.pages.written), (2, 2));
                    let rolled_back = canister.call("m");
                    assert_eq!(rolled_back.result, Ok(()));
                    canister.wasm.rollback().unwrap();
                    let heap = canister.heap();
                    assert!((0..100).all(|i| heap[i * 1000] == round));
                }
            });
        }
    });
}

#[test]
fn more_isolated_pages_than_the_system_has_mappings_stay_exact() {
    // Every other page of 4 GiB is written: some 65,000 mappings, more than Linux allows by default.
    let mut canister = Canister::new(
        r#"(module (memory 65536) (func (export "canister_update m") (local $i i32)
             (loop $again
                (i32.store (i32.mul (local.get $i) (i32.const 131072)) (i32.const 7))
                (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 32768))))
             (i32.store (i32.const 0) (i32.load (i32.const 131072)))))"#,
    );
    let execution = canister.call("m");
    assert_eq!(execution.result, Ok(()));
    assert_eq!((execution.pages.accessed, execution.pages.written), (32_768, 32_768));
    let byte = |canister: &mut Canister, page: u64| {
        let mut byte = [1];
        canister.wasm.heap().read(page * 65_536, &mut byte).unwrap();
        byte[0]
    };
    assert_eq!([0, 1, 2, 65_534, 65_535].map(|page| byte(&mut canister, page)), [7, 0, 7, 7, 0]);
    canister.wasm.rollback().unwrap();
    assert_eq!([0, 1, 2, 65_534, 65_535].map(|page| byte(&mut canister, page)), [0; 5]);
}

#[test]
fn an_access_behind_the_memory_is_a_trap_even_far_away() {
    for (address, offset) in [(65_536u32, 0u32), (0, 65_536), (u32::MAX, u32::MAX), (0xffff_0000, 0xffff)] {
        let wat = format!(
            r#"(module (memory 1) (func (export "canister_update m")
                 (drop (v128.load offset={offset} (i32.const {})))))"#,
            address as i32
        );
        assert_eq!(Canister::new(&wat).call("m").result, Err(Trap::Wasm(WasmTrap::HeapOutOfBounds)));
    }
}

#[test]
fn a_module_in_use_is_loaded_once() {
    let engine = Engine::new(None).unwrap();
    let wasm = wat::parse_str("(module)").unwrap();
    let first = engine.load(&wasm).unwrap();
    assert!(Arc::ptr_eq(&first.0, &engine.clone().load(&wasm).unwrap().0));
    drop(first);
    assert!(engine.load(&wasm).is_ok());
}

#[test]
fn missing_host_functions_are_named() {
    let engine = Engine::new(None).unwrap();
    let wat = r#"(module (import "ic0" "time" (func (result i64))))"#;
    let module = engine.load(&wat::parse_str(wat).unwrap()).unwrap();
    let error = module.prepare(&linker(&engine)).err().unwrap();
    assert!(matches!(&error, LoadError::MissingImport(name) if name == "time"), "{error}");
}

#[test]
fn compiled_modules_are_kept_on_disk_and_damage_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/modules");
    let engine = Engine::new(Some(path.clone())).unwrap();
    let wasm = wat::parse_str(r#"(module (func (export "canister_update m")))"#).unwrap();
    engine.load(&wasm).unwrap();
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let compiled = std::fs::read(&files[0]).unwrap();
    let run = || {
        let module = engine.load(&wasm).unwrap();
        let prepared = module.prepare(&linker(&engine)).unwrap();
        let mut wasm = WasmState::new(&module).unwrap();
        prepared.run(&mut wasm, Notes::default(), Entry::Export("canister_update m"), &OPTIONS).result
    };
    assert_eq!(run(), Ok(()));
    assert_eq!(std::fs::read(&files[0]).unwrap(), compiled, "read, not compiled again");
    std::fs::write(&files[0], b"damaged").unwrap();
    assert_eq!(run(), Ok(()));
    assert_ne!(std::fs::read(&files[0]).unwrap(), b"damaged", "compiled again and replaced");
    assert!(Engine::new(Some("/proc/none".into())).unwrap().load(&wasm).is_ok(), "no cache is no error");
}
