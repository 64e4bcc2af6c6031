//! Log probabilities in the two forms of OpenAI's API: that of chats, and the older one of completions.

use model_core::TokenId;
use model_core::sample::TokenLogprob;
use model_core::tokenizer::Tokenizer;
use serde_json::{Map, Value as Json, json};

/// What stands for minus infinity, which JSON lacks.
const LEAST: f32 = -9999.0;

/// Tokens of an answer with their log probabilities: each token's own first, then those of the likeliest in its place.
#[derive(Debug, Clone, Copy)]
pub struct Logprobs<'a> {
    /// Names the tokens.
    pub tokenizer: &'a Tokenizer,
    /// Those to tell.
    pub tokens: &'a [Vec<TokenLogprob>],
}

impl Logprobs<'_> {
    /// As a chat has them.
    pub fn of_chat(&self) -> Json {
        let entry = |(own, top): (&TokenLogprob, &[TokenLogprob])| {
            let mut entry = self.named(own);
            let top: Vec<_> = top.iter().map(|token| Json::Object(self.named(token))).collect();
            entry.insert("top_logprobs".to_owned(), Json::Array(top));
            Json::Object(entry)
        };
        let content: Vec<_> = self.entries().map(entry).collect();
        json!({ "content": content, "refusal": null })
    }

    /// As a completion has them; `offset` is how many characters of its text come before, and is moved on.
    pub fn of_completion(&self, offset: &mut usize) -> Json {
        let (mut tokens, mut own_logprobs, mut all_top, mut offsets) = (vec![], vec![], vec![], vec![]);
        for (own, top) in self.entries() {
            let text = self.text(own.id);
            offsets.push(*offset);
            *offset += text.chars().count();
            tokens.push(text);
            own_logprobs.push(finite(own));
            let top = top.iter().map(|token| (self.text(token.id), json!(finite(token))));
            all_top.push(top.collect::<Map<_, _>>());
        }
        json!({ "tokens": tokens, "token_logprobs": own_logprobs, "top_logprobs": all_top, "text_offset": offsets })
    }

    /// Without the token that ended the answer, which is no part of its text.
    fn entries(&self) -> impl Iterator<Item = (&TokenLogprob, &[TokenLogprob])> {
        let ends = self.tokenizer.end_of_generation();
        self.tokens.iter().filter_map(|of| of.split_first()).filter(|(own, _)| !ends.contains(&own.id))
    }

    fn named(&self, token: &TokenLogprob) -> Map<String, Json> {
        let bytes = self.tokenizer.token_bytes(token.id).unwrap_or_default();
        let fields =
            [("token", json!(self.text(token.id))), ("logprob", json!(finite(token))), ("bytes", json!(bytes))];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A token's text, with a sign for bytes that are no whole character; a control token's spelling.
    fn text(&self, id: TokenId) -> String {
        let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
        if bytes.is_empty() {
            return self.tokenizer.token_text(id).unwrap_or_default().to_owned();
        }
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// With the digits that an `f32` has.
fn finite(token: &TokenLogprob) -> f64 {
    let logprob = token.logprob.max(LEAST);
    logprob.to_string().parse().unwrap_or(f64::from(logprob))
}

#[cfg(test)]
mod tests {
    use model_core::fixtures::TinyLlama;
    use model_core::gguf::File;

    use super::*;

    #[test]
    fn tokens_have_names_bytes_and_alternatives() {
        let file = File::read(&TinyLlama::default().build()).unwrap();
        let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
        let id = |text: &str| tokenizer.encode(text, Default::default()).unwrap()[0];
        let end = tokenizer.end_of_generation()[0];
        let token = |id, logprob| TokenLogprob { id, logprob };
        let tokens = [
            vec![token(id("a"), -0.5), token(id("b"), f32::NEG_INFINITY)],
            vec![token(id("b"), -1.0)],
            vec![token(end, -0.1), token(id("a"), -3.0)],
        ];
        let logprobs = Logprobs { tokenizer: &tokenizer, tokens: &tokens };
        let chat = logprobs.of_chat();
        assert_eq!(chat["content"].as_array().unwrap().len(), 2, "the end is not told");
        assert_eq!(chat["content"][0]["token"], "a");
        assert_eq!(chat["content"][0]["bytes"], json!([b'a']));
        assert_eq!(chat["content"][0]["top_logprobs"][0], json!({ "token": "b", "logprob": -9999.0, "bytes": [b'b'] }));
        let mut offset = 3;
        let completion = logprobs.of_completion(&mut offset);
        assert_eq!(completion["tokens"], json!(["a", "b"]));
        assert_eq!(completion["token_logprobs"], json!([-0.5, -1.0]));
        assert_eq!((&completion["text_offset"], offset), (&json!([3, 4]), 5));
        assert_eq!(completion["top_logprobs"], json!([{ "b": -9999.0 }, {}]));
    }
}
