//! Every malformed file that has a name is answered with the error that names its defect, however it is loaded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use crate::common::load;
use model_core::Error;
use model_core::budget::CountDown;
use model_core::chat::{ChatMessage, Variables};
use model_core::fixtures::TinyLlama;
use model_core::fixtures::defects::{Defect, Found, sound};
use model_core::gguf::GgmlType;
use model_core::model::{LoadOptions, Loader, Model};
use model_core::pack::{Precision, Residency};
use model_core::quant;

fn at_once(file: &[u8]) -> Result<Model, Error> {
    Model::load(&file.to_vec(), &LoadOptions::default())
}

fn in_steps(file: &[u8]) -> Result<Model, Error> {
    let file = file.to_vec();
    let mut loader = Loader::new(LoadOptions::default());
    while !loader.step(&file, &mut CountDown::new(1))?.ready {}
    loader.finish()
}

/// What a loaded model says to a first conversation, and what it computes of two tokens.
fn used(model: &Model, found: Found) -> Result<(), Error> {
    let message = [ChatMessage::new("user", "hello")];
    match (found, &model.chat) {
        (Found::Computing, _) => model.logits_for(&[1, 2], |_, _| {}),
        (_, Some(chat)) => Ok(chat.render(&message, &Variables::default(), true).map(drop)?),
        (_, None) => panic!("no chat template"),
    }
}

#[test]
fn each_defect_has_its_error() {
    let defects = Defect::all();
    let names: BTreeSet<&str> = defects.iter().map(|defect| defect.name).collect();
    assert_eq!(names.len(), defects.len(), "every name once");
    assert!(defects.len() >= 130, "{}", defects.len());
    for Defect { name, found, file, named_by } in defects {
        for load in [at_once, in_steps] {
            let error = match (load(&file), found) {
                (Err(error), Found::Loading) => error,
                (Err(error), _) => panic!("{name}: not loaded: {error}"),
                (Ok(_), Found::Loading) => panic!("{name}: loaded"),
                (Ok(model), found) => match used(&model, found) {
                    Err(error) => error,
                    Ok(()) => panic!("{name}: accepted"),
                },
            };
            assert!(named_by(&error), "{name}: {error:?}");
            assert!((20..700).contains(&error.to_string().len()), "{name}: {error}");
        }
    }
}

/// The files from which the defects deviate are fine, in every format.
#[test]
fn the_files_without_the_defects_are_accepted() {
    let used_up = |file: Vec<u8>| {
        let model = load(&file);
        used(&model, Found::Conversation).unwrap();
        used(&model, Found::Computing).unwrap();
    };
    used_up(sound().build());
    used_up(TinyLlama { rope_freqs: Some(vec![1.0; 8]), ..sound() }.build());
    for &ty in GgmlType::ALL.iter().filter(|&&ty| quant::supports(ty)) {
        let dim = if ty.block_elements() > 32 { 256 } else { 32 };
        used_up(TinyLlama { dim, head_dim: 16, types: vec![("ffn_gate.weight", ty)], ..sound() }.build());
    }
}

/// A number that is none is refused whatever becomes of the weights.
#[test]
fn weights_that_are_no_numbers_are_refused_in_every_form() {
    let weights: Vec<Defect> = Defect::all().into_iter().filter(|defect| defect.name.contains("NaN")).collect();
    assert!(weights.len() > 20);
    for Defect { name, file, named_by, .. } in weights {
        for precision in [Precision::Quantized, Precision::Activations8, Precision::F32] {
            for residency in [Residency::Wide, Residency::Compact] {
                let options = LoadOptions { precision, residency: Some(residency), ..LoadOptions::default() };
                let error = Model::load(&file, &options).unwrap_err();
                assert!(named_by(&error), "{name} as {precision:?}, {residency:?}: {error}");
            }
        }
    }
}
