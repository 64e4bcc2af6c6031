//! One refused module per rule, and modules that use all that is allowed.

use std::io::Write;

use super::*;
use crate::shim::costs;

fn error(wat: &str) -> ModuleError {
    validate(&wat::parse_str(wat).unwrap()).err().unwrap_or_else(|| panic!("accepted: {wat}"))
}

fn info(wat: &str) -> ModuleInfo {
    validate(&wat::parse_str(wat).unwrap()).unwrap_or_else(|error| panic!("{error}: {wat}")).info
}

#[test]
fn describes_a_module() {
    let info = info(
        r#"(module
            (import "ic0" "msg_reply" (func $reply)) (import "ic0" "stable64_grow" (func (param i64) (result i64)))
            (memory 3) (start $empty) (func $empty)
            (func (export "canister_init")) (func (export "canister_on_low_wasm_memory"))
            (func (export "canister_update a b")) (func (export "canister_query q")) (func (export "canister_composite_query c"))
            (func (export "get_candid_pointer") (result i32) i32.const 0)
            (@custom "icp:public candid:service" "service") (@custom "icp:private p" "") (@custom "other" "x"))"#,
    );
    let methods: Vec<_> = info.methods.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    assert_eq!(methods, [("a b", MethodKind::Update), ("c", MethodKind::CompositeQuery), ("q", MethodKind::Query)]);
    assert_eq!(info.entry_points.iter().collect::<Vec<_>>(), ["canister_init", "canister_on_low_wasm_memory"]);
    assert_eq!(info.imports, ["msg_reply", "stable64_grow"]);
    assert_eq!(info.memory_pages, Some((3, 65_536)));
    assert!(info.has_start);
    let metadata: Vec<_> =
        info.metadata.iter().map(|(name, data)| (name.as_str(), data.public, data.bytes.len())).collect();
    assert_eq!(metadata, [("candid:service", true, 7), ("p", false, 0)]);
}

#[test]
fn accepts_every_allowed_proposal() {
    info(
        r#"(module (memory 1) (table 1 funcref) (elem declare func $f)
            (global (mut v128) (v128.const i64x2 0 0))
            (data $d "x")
            (func $f (param i32) (result i32 i32) local.get 0 local.get 0)
            (func (result i32) (drop (i32.extend8_s (i32.const 1))) (drop (i32.trunc_sat_f32_s (f32.const 1)))
                (drop (ref.func $f)) (drop (table.get 0 (i32.const 0))) (drop (table.size 0))
                (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)) (data.drop $d)
                (drop (i32x4.dot_i16x8_s (v128.const i64x2 0 0) (v128.const i64x2 0 0)))
                (drop (ref.is_null (ref.null func)))
                (return_call $g (i32.const 1)))
            (func $g (param i32) (result i32) local.get 0))"#,
    );
}

#[test]
fn every_system_function_may_be_imported_with_its_type_only() {
    for function in costs::SYSTEM_FUNCTIONS {
        let types = |letters: &str| letters.chars().map(|c| if c == 'I' { "i64 " } else { "i32 " }).collect::<String>();
        let wat = |params: &str, results: &str| {
            format!(
                r#"(module (import "ic0" "{}" (func (param {}) (result {}))))"#,
                function.name,
                types(params),
                types(results)
            )
        };
        assert_eq!(info(&wat(function.params, function.results)).imports, [function.name]);
        let more = format!("{}i", function.params);
        assert!(matches!(error(&wat(&more, function.results)), ModuleError::ImportSignature { .. }));
    }
}

#[test]
fn refuses_wrong_imports() {
    assert!(matches!(error(r#"(module (import "env" "time" (func (result i64))))"#), ModuleError::ImportModule { .. }));
    assert!(matches!(error(r#"(module (import "ic0" "memory" (memory 1)))"#), ModuleError::ImportModule { .. }));
    assert!(matches!(error(r#"(module (import "ic0" "global" (global i32)))"#), ModuleError::ImportModule { .. }));
    assert!(matches!(
        error(r#"(module (import "ic0" "tiem" (func (result i64))))"#),
        ModuleError::UnknownImport { .. }
    ));
    let text = error(r#"(module (import "ic0" "time" (func (param i32) (result i32))))"#).to_string();
    assert!(text.contains("(i32) -> (i32), expected () -> (i64)"), "{text}");
}

#[test]
fn refuses_wrong_exports() {
    let export = |name: &str, ty: &str| error(&format!(r#"(module (func (export "{name}") {ty} unreachable))"#));
    for name in ["canister_start", "canister counter_instructions", "stable_memory"] {
        assert!(matches!(export(name, ""), ModuleError::ReservedExport { .. }));
    }
    for name in ["canister_update", "canister_other", "canister_init2"] {
        assert!(matches!(export(name, ""), ModuleError::UnknownEntryPoint { .. }));
    }
    for name in ["canister_init", "canister_update x", "canister_composite_query x"] {
        assert!(matches!(export(name, "(param i32)"), ModuleError::EntryPointSignature { .. }));
        assert!(matches!(export(name, "(result i64)"), ModuleError::EntryPointSignature { .. }));
    }
    let duplicate = r#"(module (func (export "canister_update x")) (func (export "canister_query x")))"#;
    assert!(matches!(error(duplicate), ModuleError::DuplicateMethod { name } if name == "x"));
}

#[test]
fn refuses_too_many_or_too_long_methods() {
    let methods = |count: usize, length: usize| {
        let exports: String =
            (0..count).map(|i| format!(r#"(export "canister_query {i:0length$}" (func 0))"#)).collect();
        format!("(module (func) {exports})")
    };
    assert_eq!(info(&methods(1_000, 20)).methods.len(), 1_000);
    assert!(matches!(error(&methods(1_001, 4)), ModuleError::TooMany { what: "exported methods", found: 1_001, .. }));
    assert!(matches!(
        error(&methods(1_000, 21)),
        ModuleError::TooMany { what: "bytes of method names", found: 21_000, .. }
    ));
}

#[test]
fn refuses_bad_metadata() {
    let custom = |name: &str| format!(r#"(@custom "{name}" "data")"#);
    for name in ["icp:public", "icp:private", "icp:protected x", "icp:"] {
        assert!(matches!(error(&format!("(module {})", custom(name))), ModuleError::CustomSectionName { .. }));
    }
    let twice = format!("(module {} {})", custom("icp:public x"), custom("icp:private x"));
    assert!(matches!(error(&twice), ModuleError::DuplicateCustomSection { name } if name == "x"));
    let many = |count: usize| -> String {
        let sections: String = (0..count).map(|i| custom(&format!("icp:public {i}"))).collect();
        format!("(module {sections})")
    };
    assert_eq!(info(&many(16)).metadata.len(), 16);
    assert!(matches!(error(&many(17)), ModuleError::TooMany { what: "metadata sections", found: 17, limit: 16 }));
    let large = |bytes: usize| format!(r#"(module (@custom "icp:public x" "{}"))"#, "a".repeat(bytes));
    assert_eq!(info(&large((1 << 20) - 1)).metadata.len(), 1);
    assert!(matches!(error(&large(1 << 20)), ModuleError::TooMany { what: "bytes of metadata sections", .. }));
}

#[test]
fn refuses_64_bit_memory_and_other_proposals() {
    assert!(matches!(error("(module (memory i64 1))"), ModuleError::Memory64));
    assert!(matches!(error("(module (table i64 1 funcref))"), ModuleError::Memory64));
    for wat in [
        "(module (memory 1) (memory 1))",
        "(module (memory 1 1 shared))",
        "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
        "(module (func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))",
        "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        "(module (type (struct)))",
        "(module (tag))",
        "(module (func (param externref)))",
        "(module (func (drop (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))) drop))",
        "(module (memory 65537))",
    ] {
        assert!(matches!(error(wat), ModuleError::Invalid { .. }), "{wat}: {}", error(wat));
    }
}

#[test]
fn refuses_table_operators_that_change_tables() {
    for (operator, body) in [
        ("TableGrow", "(drop (table.grow 0 (ref.null func) (i32.const 1)))"),
        ("TableSet", "(table.set 0 (i32.const 0) (ref.null func))"),
        ("TableFill", "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))"),
        ("TableCopy", "(table.copy (i32.const 0) (i32.const 0) (i32.const 0))"),
        ("TableInit", "(table.init $e (i32.const 0) (i32.const 0) (i32.const 0))"),
    ] {
        let wat = format!("(module (table 1 funcref) (elem $e func) (func) (func {body}))");
        let found = error(&wat);
        assert!(
            matches!(found, ModuleError::UnsupportedOperator { function: 1, operator: name } if name == operator),
            "{found}"
        );
    }
}

#[test]
fn refuses_too_many_parts() {
    let too_many = |wat: &str, expected: &str| {
        let found = error(wat);
        assert!(matches!(found, ModuleError::TooMany { what, .. } if what == expected), "{found}");
    };
    let functions = |count: usize| format!("(module {})", "(func)".repeat(count));
    info(&functions(50_000));
    too_many(&functions(50_001), "functions");
    let globals = |count: usize| format!("(module {})", "(global i32 (i32.const 0))".repeat(count));
    info(&globals(1_000));
    too_many(&globals(1_001), "globals");
    too_many("(module (table 1 funcref) (table 1 funcref))", "tables");
    info("(module (table 1000000 funcref))");
    too_many("(module (table 1000001 funcref))", "table elements");
}

#[test]
fn refuses_large_and_complex_functions() {
    // Each block with its end weighs 51 and counts 2; the function's own end weighs 1.
    let blocks = |count: usize| format!("(module (func {}))", "block end ".repeat(count));
    info(&blocks(19_607));
    assert!(matches!(error(&blocks(19_608)), ModuleError::FunctionTooComplex { function: 0, found: 1_000_009, .. }));
    // The end of a function counts as an operator.
    let nops = |count: usize| format!("(module (func {}))", "nop ".repeat(count));
    info(&nops(999_999));
    assert!(matches!(error(&nops(1_000_000)), ModuleError::FunctionTooComplex { found: 1_000_001, .. }));
}

#[test]
fn refuses_too_much_code() {
    const NOP: u8 = 0x01;
    const END: u8 = 0x0b;
    let module = |functions: u32| {
        let mut body = vec![0];
        body.resize((1 << 20) - 8, NOP);
        body.push(END);
        let (mut types, mut defined, mut code) =
            (wasm_encoder::TypeSection::new(), wasm_encoder::FunctionSection::new(), wasm_encoder::CodeSection::new());
        types.ty().function([], []);
        for _ in 0..functions {
            defined.function(0);
            code.raw(&body);
        }
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&defined).section(&code);
        module.finish()
    };
    // Ten functions are small enough as code, though each is too complex.
    let refused = |functions| validate(&module(functions)).err();
    assert!(matches!(refused(10), Some(ModuleError::FunctionTooComplex { .. })));
    assert!(matches!(refused(11), Some(ModuleError::CodeTooLarge { bytes, .. }) if bytes > 10 << 20));
}

#[test]
fn refuses_data_that_does_not_fit() {
    info(r#"(module (memory 1) (data (i32.const 65533) "abc") (data (i32.const 65536) ""))"#);
    let found = error(r#"(module (memory 1) (data "p") (data (i32.const 65534) "abc"))"#);
    assert!(
        matches!(found, ModuleError::DataOutside { index: 1, start: 65_534, end: 65_537, size: 65_536 }),
        "{found}"
    );
    let found = error(r#"(module (memory 1) (data (i32.const -1) "abc"))"#);
    assert!(matches!(found, ModuleError::DataOutside { start: 0xffff_ffff, .. }), "{found}");
    // WebAssembly 1.0 allows offsets from imported globals only, and those are refused before.
    let found = error(r#"(module (global i32 (i32.const 0)) (memory 1) (data (global.get 0) "abc"))"#);
    assert!(matches!(found, ModuleError::DataOffset { index: 0 } | ModuleError::Invalid { .. }), "{found}");
}

#[test]
fn refuses_what_is_no_module() {
    assert!(matches!(validate(b"").err(), Some(ModuleError::Invalid { .. })));
    assert!(matches!(validate(b"\0asm\x0d\0\x01\0").err(), Some(ModuleError::Invalid { .. })), "a component");
    let valid = wat::parse_str("(module (memory 1) (func))").unwrap();
    for end in 1..valid.len() {
        // A module may end after any section; every other cut is an error, never a panic.
        let cut = validate(&valid[..end]);
        assert!(cut.is_err() || end >= 8, "{end}");
    }
}

#[test]
fn decodes_gzip_by_its_magic_bytes() {
    let wasm = wat::parse_str("(module)").unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&wasm).unwrap();
    let zipped = encoder.finish().unwrap();
    assert_eq!(decode(&zipped).unwrap(), wasm);
    assert_eq!(decode(&wasm).unwrap(), wasm);
    assert!(matches!(decode(&zipped[..zipped.len() - 9]), Err(ModuleError::Gzip(_))));
    assert!(matches!(decode(&[0x1f, 0x8b]), Err(ModuleError::Gzip(_))));
}

#[test]
fn refuses_modules_that_decompress_to_too_much() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..101 {
        encoder.write_all(&zeros).unwrap();
    }
    assert!(matches!(decode(&encoder.finish().unwrap()), Err(ModuleError::TooLarge { limit: 104_857_600 })));
}
