//! The built module as a deployer sees it: what it imports, how large it is, what it says of itself, and
//! what uploading and generating cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::io::Read;

use canister::api::*;
use end_to_end::{Icllama, ShimHost, ask, canister_module, chunks, real_model};
use flate2::read::GzDecoder;
use wasmparser::{Parser, Payload};

/// Most of an ingress message of 2 MiB; larger modules have to be installed in chunks.
const INGRESS_LIMIT: usize = 2 << 20;

fn module() -> Vec<u8> {
    let mut module = Vec::new();
    GzDecoder::new(canister_module()).read_to_end(&mut module).unwrap();
    module
}

#[test]
fn imports_only_the_platform() {
    let module = module();
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ImportSection(section) = payload.unwrap() {
            for import in section.into_imports() {
                let import = import.unwrap();
                imports.push((import.module.to_owned(), import.name.to_owned()));
            }
        }
    }
    assert!(imports.len() > 10, "{imports:?}");
    for (module, name) in imports {
        assert_eq!(module, "ic0", "{name}");
    }
}

#[test]
fn fits_one_install_message() {
    let bytes = canister_module().len();
    assert!(bytes < INGRESS_LIMIT, "{bytes} bytes");
}

#[test]
fn carries_the_committed_interface_as_public_metadata() {
    let module = module();
    let sections = Parser::new(0).parse_all(&module).filter_map(|payload| match payload.unwrap() {
        Payload::CustomSection(section) if section.name() == "icp:public candid:service" => {
            Some(String::from_utf8(section.data().to_vec()).unwrap())
        }
        _ => None,
    });
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../canister/canister.did")).unwrap();
    assert_eq!(sections.collect::<Vec<_>>(), [committed]);
}

fn install() -> Icllama<ShimHost> {
    Icllama::install(Box::new(ShimHost::new()), ConfigUpdate::default())
}

#[test]
fn a_chunk_costs_a_few_instructions_per_byte() {
    let file = vec![0x5a; 5_700_000];
    let mut icllama = install();
    let upload_id = icllama.announce("large", &file).upload_id;
    for chunk in chunks(&file, 1_900_000) {
        icllama.host.heaviest();
        icllama.send(upload_id, &[chunk]);
        let per_byte = icllama.host.heaviest() as f64 / 1_900_000.0;
        // Measured: 8.8, most of it for pages of heap and stable memory.
        assert!(per_byte < 10.0, "{per_byte:.2} instructions per byte");
    }
}

#[test]
fn a_token_costs_less_than_one_instruction_per_weight() {
    let mut icllama = install();
    icllama.serve("SmolLM2", real_model());
    let weights = icllama.model_status().serving.unwrap().weights_per_token;
    assert!((134_000_000..135_000_000).contains(&weights), "{weights}");
    let session_id = icllama.session_create(ask("Once upon a time", 40)).unwrap().session_id;
    let mut advance = |max_tokens| {
        icllama.host.heaviest();
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens, profile: None };
        let tokens = icllama.session_advance(arg).unwrap().tokens.len() as u64;
        (tokens, icllama.host.heaviest())
    };
    assert_eq!(advance(Some(8)).0, 8);
    let (tokens, instructions) = advance(None);
    assert_eq!(tokens, 32);
    let per_weight = instructions as f64 / (tokens * weights) as f64;
    // Measured: 0.86, pages included.
    assert!(per_weight < 1.0, "{per_weight:.2} instructions per weight");
}
