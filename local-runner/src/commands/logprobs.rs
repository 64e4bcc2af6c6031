//! Log probabilities of generated tokens, for people and as JSON.

use anyhow::Result;
use model_core::TokenId;
use model_core::sample::TokenLogprob;
use model_core::tokenizer::Tokenizer;
use serde::Serialize;

use super::tokenize::piece;

/// A generated token, and the likeliest ones in its place.
#[derive(Debug, Serialize)]
pub(super) struct Logprobs {
    #[serde(flatten)]
    token: Token,
    /// The likeliest first.
    top: Vec<Token>,
}

#[derive(Debug, Serialize)]
struct Token {
    id: TokenId,
    /// As `icllama tokenize` shows it.
    text: String,
    logprob: f32,
}

/// What a backend tells of each token: its own log probability first, then those of the likeliest.
pub(super) fn named(tokenizer: &Tokenizer, logprobs: &[Vec<TokenLogprob>]) -> Result<Vec<Logprobs>> {
    let token = |of: &TokenLogprob| -> Result<Token> {
        // An embedding may have more rows than there are tokens; those have no text.
        let has_text = (of.id as usize) < tokenizer.vocab_size();
        let text = if has_text { piece(tokenizer, of.id)? } else { String::new() };
        Ok(Token { id: of.id, text, logprob: of.logprob })
    };
    let entry = |(own, top): (&TokenLogprob, &[TokenLogprob])| -> Result<Logprobs> {
        Ok(Logprobs { token: token(own)?, top: top.iter().map(token).collect::<Result<_>>()? })
    };
    logprobs.iter().filter_map(|of| of.split_first()).map(entry).collect()
}

impl Logprobs {
    /// A line for people: the token, then the likeliest with their probabilities.
    pub(super) fn line(&self) -> String {
        let top: Vec<_> = self.top.iter().map(Token::describe).collect();
        format!("{:<24} {}", self.token.describe(), top.join("  ")).trim_end().to_owned()
    }
}

impl Token {
    fn describe(&self) -> String {
        format!("{:>8.4} \"{}\"", self.logprob, self.text)
    }
}
