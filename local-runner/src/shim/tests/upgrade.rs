//! Install, reinstall, upgrade, uninstall: what is kept and what a failure restores.

use super::*;

const FIRST: &str = r#"
  (global $g (mut i64) (i64.const 1))
  (func (export "canister_init")
    (drop (call $stable64_grow (i64.const 1)))
    (call $stable64_write (i64.const 0) (i64.const 100) (i64.extend_i32_u (call $take_arg (i32.const 100))))
    (call $count (i64.const 40)))
  (func (export "canister_pre_upgrade")
    (call $stable64_write (i64.const 8) (i64.const 0) (i64.const 8))
    (call $count (i64.const 1000))
    (global.set $g (i64.const 9)))
  (func (export "canister_update set")
    (call $count (i64.const 2))
    (drop (call $global_timer_set (i64.const 5)))
    (call $certified_data_set (i32.const 0) (i32.const 8))
    (call $reply_counter))
  (func (export "canister_query get") (call $reply_u64 (i64.add (i64.load (i32.const 0)) (global.get $g))))
"#;

/// Reads stable memory back.
const READER: &str = r#"
  (func (export "canister_query stable")
    (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 16))
    (call $reply (i32.const 0) (i32.const 16)))
  (func (export "canister_query get") (call $reply_counter))
"#;

fn first() -> Shim {
    let mut replica = Replica::new(config()).unwrap();
    let id = replica.create_canister([user()]);
    assert_eq!(replica.install(id, InstallMode::Install, &module(FIRST), b"argument", user()).result, Ok(vec![]));
    let mut shim = Shim { replica, id };
    assert_eq!(number(&shim.update("set", b"")), 42);
    shim
}

impl Shim {
    fn install(&mut self, mode: InstallMode, body: &str) -> CallReport {
        self.replica.install(self.id, mode, &module(body), b"new", user())
    }
}

#[test]
fn upgrade_keeps_stable_memory_and_certified_data_and_drops_heap_and_timer() {
    let mut shim = first();
    let version = shim.canister().version();
    let report = shim.install(InstallMode::UPGRADE, READER);
    assert_eq!(report.result, Ok(vec![]));
    assert_eq!(report.messages.iter().map(|message| message.mode.name()).collect::<Vec<_>>(), ["pre upgrade"]);
    assert!(report.compile_instructions > 0);
    let stable = shim.query("stable", b"").result.unwrap();
    assert_eq!(stable, [b"argument".as_slice(), &42u64.to_le_bytes()].concat());
    assert_eq!(number(&shim.query("get", b"")), 0);
    let canister = shim.canister();
    assert_eq!((canister.timer_ns(), canister.certified_data()[0]), (None, 42));
    assert_eq!(canister.version(), version + 1);
}

#[test]
fn skips_pre_upgrade_when_asked() {
    let mut shim = first();
    let report = shim.install(InstallMode::Upgrade { skip_pre_upgrade: true }, READER);
    assert_eq!((report.result, report.messages.len()), (Ok(vec![]), 0));
    assert_eq!(shim.query("stable", b"").result.unwrap()[8..], [0; 8]);
}

#[test]
fn a_failing_upgrade_restores_everything() {
    let failing = format!(
        r#"{READER}
        (func (export "canister_post_upgrade")
          (call $stable64_write (i64.const 0) (i64.const 0) (i64.const 16))
          (drop (call $stable64_grow (i64.const 5)))
          (drop (call $global_timer_set (i64.const 9)))
          (call $certified_data_set (i32.const 0) (i32.const 1))
          (unreachable))"#
    );
    let mut shim = first();
    let (hash, version) = (shim.canister().module_hash(), shim.canister().version());
    let report = shim.install(InstallMode::UPGRADE, &failing);
    assert_rejected(&report, RejectCode::CanisterError, 502, "unreachable");
    let canister = shim.canister();
    assert_eq!((canister.module_hash(), canister.version()), (hash, version));
    assert_eq!((canister.timer_ns(), canister.certified_data()[0]), (Some(5), 42));
    assert_eq!(canister.stable().pages(), 1);
    let mut stable = [0; 16];
    canister.stable().read(0, &mut stable).unwrap();
    assert_eq!(&stable, b"argument\0\0\0\0\0\0\0\0", "what pre_upgrade wrote is gone too");
    assert_eq!(number(&shim.query("get", b"")), 43, "heap and globals as before pre_upgrade");
    assert_eq!(number(&shim.update("set", b"")), 44);
}

#[test]
fn a_trapping_pre_upgrade_prevents_the_upgrade() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update add") (call $count (i64.const 1)) (call $reply_counter))
        (func (export "canister_pre_upgrade") (call $count (i64.const 5)) (unreachable))"#,
    );
    let hash = shim.canister().module_hash();
    assert_eq!(reject(&shim.install(InstallMode::UPGRADE, READER)).error_code, 502);
    assert_eq!(shim.canister().module_hash(), hash);
    assert_eq!(number(&shim.update("add", b"")), 1);
    assert_eq!(shim.install(InstallMode::Upgrade { skip_pre_upgrade: true }, READER).result, Ok(vec![]));
}

#[test]
fn runs_start_before_init_and_before_post_upgrade() {
    let body = r#"
        (func $start (call $count (i64.const 3)))
        (start $start)
        (func (export "canister_init") (i64.store (i32.const 0) (i64.mul (i64.load (i32.const 0)) (i64.const 10))))
        (func (export "canister_post_upgrade") (i64.store (i32.const 0) (i64.mul (i64.load (i32.const 0)) (i64.const 20))))
        (func (export "canister_query get") (call $reply_counter))"#;
    let mut shim = Shim::new(body);
    assert_eq!(number(&shim.query("get", b"")), 30);
    assert_eq!(shim.install(InstallMode::UPGRADE, body).result, Ok(vec![]));
    assert_eq!(number(&shim.query("get", b"")), 60);
}

#[test]
fn reinstall_drops_everything_and_a_failing_one_restores_it() {
    let mut shim = first();
    let report = shim.install(InstallMode::Reinstall, r#"(func (export "canister_init") (unreachable))"#);
    assert_eq!(reject(&report).error_code, 502);
    assert_eq!(number(&shim.update("set", b"")), 44);
    assert_eq!(shim.canister().stable().pages(), 1);
    assert_eq!(shim.install(InstallMode::Reinstall, READER).result, Ok(vec![]));
    let canister = shim.canister();
    assert_eq!((canister.stable().pages(), canister.certified_data(), canister.timer_ns()), (0, [].as_slice(), None));
}

#[test]
fn checks_mode_sender_and_module() {
    let mut shim = first();
    let report = shim.install(InstallMode::Install, READER);
    assert_rejected(&report, RejectCode::CanisterError, 538, "not empty");
    let report = shim.replica.install(shim.id, InstallMode::UPGRADE, &module(READER), b"", stranger());
    assert_rejected(&report, RejectCode::CanisterError, 512, "Only the controllers of the canister");
    let report = shim.replica.install(shim.id, InstallMode::UPGRADE, b"not wasm", b"", user());
    assert_rejected(&report, RejectCode::CanisterError, 505, "Wasm module is not valid");
    let empty = shim.replica.create_canister([user()]);
    let report = shim.replica.install(empty, InstallMode::UPGRADE, &module(READER), b"", user());
    assert_eq!(reject(&report).error_code, 537);
    let unknown = wat::parse_str(r#"(module (import "ic0" "no_such" (func)))"#).unwrap();
    let report = shim.replica.install(empty, InstallMode::Install, &unknown, b"", user());
    assert_rejected(&report, RejectCode::CanisterError, 505, "no_such");
}

#[test]
fn installs_gzipped_modules_under_the_hash_of_the_gzipped_bytes() {
    use sha2::Digest;
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&module(READER)).unwrap();
    let gzipped = encoder.finish().unwrap();
    let mut shim = first();
    assert_eq!(shim.replica.install(shim.id, InstallMode::UPGRADE, &gzipped, b"", user()).result, Ok(vec![]));
    assert_eq!(shim.canister().module_hash(), Some(sha2::Sha256::digest(&gzipped).into()));
}

#[test]
fn shares_one_instruction_limit_over_all_steps() {
    let spin = |name: &str, times: u32| {
        format!(
            r#"(func (export "{name}") (local $i i32)
                 (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
                          (br_if $l (i32.lt_u (local.get $i) (i32.const {times})))))"#
        )
    };
    let mut config = config();
    config.limits.instructions.install = 10_000_000;
    let mut shim = Shim::with(config, &spin("canister_pre_upgrade", 500_000));
    let report = shim.install(InstallMode::UPGRADE, &spin("canister_post_upgrade", 100_000));
    assert_eq!(report.result, Ok(vec![]));
    assert_eq!(report.messages.len(), 2);
    let mut config = self::config();
    config.limits.instructions.install = 10_000_000;
    let mut shim = Shim::with(config, &spin("canister_pre_upgrade", 500_000));
    let report = shim.install(InstallMode::UPGRADE, &spin("canister_post_upgrade", 600_000));
    assert_rejected(&report, RejectCode::CanisterError, 522, "exceeded the limit of 10000000 instructions");
}
