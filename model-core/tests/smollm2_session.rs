//! The real model end to end: text to tokens to logits to text.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common::{audited, finish, load, smollm2};
use model_core::prompt;
use model_core::reference::Reference;
use model_core::sample::Sampling;
use model_core::session::Session;

#[test]
fn completes_a_sentence_and_agrees_with_the_plain_evaluation() {
    let file = smollm2();
    let model = load(&file);
    assert_eq!(model.weights_per_token(), 134_479_872);
    let tokens = prompt::text(&model.tokenizer, "The capital of France is", false).unwrap();
    let mut session = Session::new(&model, tokens, audited(16, Sampling::greedy())).unwrap();
    finish(&mut session, &model);
    assert!(session.text().contains("Paris"), "{}", session.text());

    let reference = Reference::load(&file).unwrap();
    let mut expected = Vec::new();
    reference.logits_of(session.tokens(), |_, logits| expected.push(logits.to_vec())).unwrap();
    let mut worst = 0.0f32;
    model
        .logits_for(session.tokens(), |position, logits| {
            let largest = expected[position].iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let difference = logits.iter().zip(&expected[position]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            worst = worst.max(difference / largest);
        })
        .unwrap();
    assert!(worst < 5e-3, "logits differ by {worst} of the largest");
}
