//! What models of real sizes would cost in the canister, computed from what the demo's model was measured to cost
//! (`bench/record`), and the table of it in `docs/pick-a-model.md`.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::path::Path;

use model_core::gguf::{GgmlType, TensorInfo};
use model_core::pack::{Packer, Precision, Residency};

/// Instructions after which a call stops computing (the default of the setting `max_instructions`).
const CALL: f64 = 36e9;
/// Charged for the first access to a byte in a call: 5,000 for a page of 4 KiB.
const PAGE_PER_BYTE: f64 = 5000.0 / 4096.0;
/// Cycles of a message besides its instructions, on 13 nodes: the base fee, its reception, and some 300 bytes of it.
const MESSAGE: f64 = 5e6 + 1.2e6 + 300.0 * 2000.0;
/// Heap for weights by default: `max_heap_bytes` less `cache_heap_bytes` less 128 MiB; and with both set as far as goes.
const WEIGHT_BYTES: [u64; 2] = [1920 << 20, 3456 << 20];
/// Cycles for keeping a GiB for a month on 13 nodes, and bytes that are kept besides the file and the weights: caches, buffers,
/// the module.
const MONTH: f64 = 317_500.0 * 30.44 * 86_400.0;
const BESIDES: u64 = 256 << 20;
/// Cycles for a byte of the file that is sent, on 13 nodes: the message, and what verifying and loading computes.
const SENT: f64 = 2100.0;
/// Positions before the token that is computed.
const POSITION: f64 = 256.0;
/// Tokens to a call where an answer is to grow smoothly.
const SMOOTH: f64 = 16.0;

/// The sizes of a model, as its `config.json` has them.
struct Shape {
    name: &'static str,
    dim: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    hidden: u64,
    vocab: u64,
    is_tied: bool,
}

const DEMO: Shape = shape("SmolLM2-135M", [576, 30, 9, 3, 64, 1536, 49_152], true);
const SHAPES: [Shape; 7] = [
    DEMO,
    shape("SmolLM2-360M", [960, 32, 15, 5, 64, 2560, 49_152], true),
    shape("Qwen2.5-0.5B", [896, 24, 14, 2, 64, 4864, 151_936], true),
    shape("Qwen3-0.6B", [1024, 28, 16, 8, 128, 3072, 151_936], true),
    shape("TinyLlama-1.1B", [2048, 22, 32, 4, 64, 5632, 32_000], false),
    shape("Llama-3.2-1B", [2048, 16, 32, 8, 64, 8192, 128_256], true),
    shape("Qwen3-1.7B", [2048, 28, 16, 8, 128, 6144, 151_936], true),
];
const TYPES: [(&str, GgmlType); 3] = [("Q4_0", GgmlType::Q4_0), ("Q4_1", GgmlType::Q4_1), ("Q8_0", GgmlType::Q8_0)];

/// `sizes`: dim, layers, heads, kv_heads, head_dim, hidden, vocab.
const fn shape(name: &'static str, sizes: [u64; 7], is_tied: bool) -> Shape {
    let [dim, layers, heads, kv_heads, head_dim, hidden, vocab] = sizes;
    Shape { name, dim, layers, heads, kv_heads, head_dim, hidden, vocab, is_tied }
}

impl Shape {
    /// Columns and rows of the matrices of a layer.
    fn matrices(&self) -> [[u64; 2]; 7] {
        let (dim, query, kv) = (self.dim, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let gate = [dim, self.hidden];
        [[dim, query], [dim, kv], [dim, kv], [query, dim], gate, gate, [self.hidden, dim]]
    }

    fn layer_weights(&self) -> f64 {
        (self.layers * self.matrices().iter().map(|[columns, rows]| columns * rows).sum::<u64>()) as f64
    }

    fn head_weights(&self) -> f64 {
        (self.dim * self.vocab) as f64
    }

    /// Bytes of all weights in memory, or in the file. Embedding and head have 8 bits.
    fn bytes(&self, ty: GgmlType, of: impl Fn(&TensorInfo) -> u64) -> u64 {
        let tensor = |ty: GgmlType, [columns, rows]: [u64; 2]| {
            let (block, bytes) = (ty.block_elements() as u64, ty.block_bytes() as u64);
            let bytes = columns * rows / block * bytes;
            of(&TensorInfo { name: String::new(), shape: vec![columns, rows], ty, offset: 0, bytes })
        };
        let layer: u64 = self.matrices().into_iter().map(|shape| tensor(ty, shape)).sum();
        let embeddings = if self.is_tied { 1 } else { 2 };
        self.layers * layer + embeddings * tensor(GgmlType::Q8_0, [self.dim, self.vocab])
    }

    fn packed_bytes(&self, ty: GgmlType, residency: Residency) -> u64 {
        self.bytes(ty, |tensor| Packer::packed_bytes(tensor, Precision::Quantized, residency).unwrap())
    }

    fn file_bytes(&self, ty: GgmlType) -> u64 {
        self.bytes(ty, |tensor| tensor.bytes)
    }

    /// Bytes of keys and values of 16 bits for one token.
    fn cache_bytes(&self) -> f64 {
        (2 * 2 * self.layers * self.kv_heads * self.head_dim) as f64
    }

    /// Multiplications of queries with keys, and of weights with values.
    fn attention(&self, positions: f64) -> f64 {
        (2 * self.layers * self.heads * self.head_dim) as f64 * positions
    }

    /// Values that are normalized, quantised, added and so on for each token.
    fn values(&self) -> f64 {
        (self.layers * (self.dim + self.hidden)) as f64
    }
}

/// A record's newest figures.
struct Record(String);

impl Record {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/record").join(format!("{name}.tsv"));
        Self(std::fs::read_to_string(path).unwrap())
    }

    fn figure(&self, name: &str) -> f64 {
        let line = self.0.lines().find(|line| line.split('\t').next() == Some(name));
        line.and_then(|line| line.rsplit('\t').next()).unwrap().parse().unwrap()
    }

    fn layer_products(&self) -> f64 {
        let parts = ["query", "key", "value", "attention output", "gate", "up", "down"];
        parts.iter().map(|part| self.figure(&format!("token at 32: product: {part}"))).sum()
    }

    fn head_product(&self) -> f64 {
        self.figure("token at 32: product: head")
    }
}

/// What was measured on the demo's model, for each unit of work.
struct Measured {
    /// Instructions for a weight with 8-bit codes, one with an offset as well, and what unpacking half a byte adds.
    code: f64,
    offset: f64,
    unpacking: f64,
    /// The same for a token of a prompt, of which the layers alone are computed, for a weight with an offset.
    prompt: f64,
    /// For a multiplication in attention, and for what it costs however short the context is.
    attention: f64,
    attention_start: f64,
    value: f64,
    /// Of a call: computing besides the model's, and pages besides those of the weights.
    call: f64,
    call_pages: f64,
}

impl Measured {
    fn read() -> Self {
        let (wide, compact) =
            (Record::read("smollm2-135m-instruct-q4_1"), Record::read("smollm2-135m-instruct-q4_1-compact"));
        let weights = DEMO.layer_weights();
        let offset = wide.layer_products() / weights;
        let attention = wide.figure("attention from 128 to 512 positions: instructions per multiplication");
        let at_32 = wide.figure("attention at 32 positions: instructions per multiplication, all of it");
        let attention_start = (at_32 - attention) * DEMO.attention(32.0) / DEMO.attention(1.0);
        let call = wide.figure("call: instructions besides computing and pages");
        let token = wide.figure("token at up to 64 positions: instructions, pages excluded") - call / 32.0;
        let in_attention = DEMO.attention(48.0) * attention + DEMO.attention(1.0) * attention_start;
        let rest = token - wide.layer_products() - wide.head_product() - in_attention;
        let packed = DEMO.packed_bytes(GgmlType::Q4_1, Residency::Wide) as f64;
        Self {
            code: wide.head_product() / DEMO.head_weights(),
            offset,
            unpacking: compact.layer_products() / weights - offset,
            prompt: wide.figure("prompt of 128: instructions per token, pages included") / weights,
            attention,
            attention_start,
            value: rest / DEMO.values(),
            call,
            call_pages: wide.figure("call: instructions for pages") - packed * PAGE_PER_BYTE,
        }
    }

    fn per_weight(&self, ty: GgmlType, residency: Residency) -> f64 {
        let code = if ty == GgmlType::Q4_1 { self.offset } else { self.code };
        let is_packed = residency == Residency::Compact && ty != GgmlType::Q8_0;
        code + if is_packed { self.unpacking } else { 0.0 }
    }

    fn token(&self, shape: &Shape, ty: GgmlType, residency: Residency, position: f64) -> f64 {
        shape.layer_weights() * self.per_weight(ty, residency)
            + shape.head_weights() * self.code
            + shape.attention(position) * self.attention
            + shape.attention(1.0) * self.attention_start
            + shape.values() * self.value
    }

    fn pages(&self, shape: &Shape, packed: u64, position: f64) -> f64 {
        self.call_pages + PAGE_PER_BYTE * (packed as f64 + position * shape.cache_bytes())
    }
}

/// A model in the canister.
struct Estimate {
    residency: Residency,
    /// Whether the settings have to make room for it.
    needs_room: bool,
    packed: u64,
    file: u64,
    per_call: f64,
    /// Cycles for 1,000 tokens: of answers in full calls and in smooth ones, and of prompts.
    full: f64,
    smooth: f64,
    prompt: f64,
}

impl Estimate {
    /// As the canister places it by itself: wide if that fits, else compact. None if neither does.
    fn of(measured: &Measured, shape: &Shape, ty: GgmlType) -> Option<Self> {
        let fits = |limit: u64| {
            let candidates = [Residency::Wide, Residency::Compact];
            candidates.into_iter().find(|residency| shape.packed_bytes(ty, *residency) <= limit)
        };
        let by_default = fits(WEIGHT_BYTES[0]);
        let residency = by_default.or_else(|| fits(WEIGHT_BYTES[1]))?;
        let packed = shape.packed_bytes(ty, residency);
        let token = measured.token(shape, ty, residency, POSITION);
        let pages = measured.pages(shape, packed, POSITION);
        let per_call = ((CALL - pages - measured.call) / token).floor();
        let thousand = |tokens: f64| 1000.0 * (token + (pages + measured.call + MESSAGE) / tokens);
        let relative = measured.per_weight(ty, residency) / measured.offset;
        Some(Self {
            residency,
            needs_room: by_default.is_none(),
            packed,
            file: shape.file_bytes(ty),
            per_call,
            full: thousand(per_call),
            smooth: thousand(per_call.min(SMOOTH)),
            prompt: 1000.0 * shape.layer_weights() * measured.prompt * relative,
        })
    }

    fn line(&self, name: &str, ty: &str) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let billions = |cycles: f64| format!("{:.0}", cycles / 1e9);
        format!(
            "| {name} | {ty} | {:.2} GiB | {}{} | {:.2} GiB | {:.0} | {} | {} | {} | {:.2} | {:.2} |\n",
            gib(self.file),
            self.residency.name(),
            if self.needs_room { ", with settings" } else { "" },
            gib(self.packed),
            self.per_call,
            billions(self.full),
            billions(self.smooth),
            billions(self.prompt),
            self.file as f64 * SENT / 1e12,
            (self.file + self.packed + BESIDES) as f64 / f64::from(1 << 30) * MONTH / 1e12,
        )
    }
}

fn table() -> String {
    let measured = Measured::read();
    let mut table = String::from(
        "| model | type | file | in the heap | weights there | tokens in a full call | full calls | 16 tokens a call | prompts \
         | upload | a month |\n| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for shape in &SHAPES {
        for (name, ty) in TYPES {
            match Estimate::of(&measured, shape, ty) {
                Some(estimate) => table.push_str(&estimate.line(shape.name, name)),
                None => table.push_str(&format!("| {} | {name} | | does not fit | | | | | | | |\n", shape.name)),
            }
        }
    }
    table
}

#[test]
fn what_was_measured_is_what_is_computed() {
    let (measured, record) = (Measured::read(), Record::read("smollm2-135m-instruct-q4_1"));
    let tokens = record.figure("full call: tokens, generated");
    let per_token = record.figure("full call: instructions per token");
    // The call's first token stands at 32 positions.
    let computed = measured.token(&DEMO, GgmlType::Q4_1, Residency::Wide, 32.0 + tokens / 2.0);
    let pages = measured.pages(&DEMO, DEMO.packed_bytes(GgmlType::Q4_1, Residency::Wide), 32.0 + tokens);
    let computed = computed + (pages + measured.call) / tokens;
    assert!((computed / per_token - 1.0).abs() < 0.01, "{computed} computed, {per_token} measured");
    for (record, ty) in [("small-q4_0", GgmlType::Q4_0), ("small-q8_0", GgmlType::Q8_0)] {
        let small = shape("small", [256, 4, 4, 2, 64, 768, 4096], true);
        let measured_small = Record::read(record).figure("token at up to 64 positions: instructions, pages excluded");
        let computed = measured.token(&small, ty, Residency::Wide, 48.0) + measured.call / 32.0;
        assert!(
            (computed / measured_small - 1.0).abs() < 0.1,
            "{record}: {computed} computed, {measured_small} measured"
        );
    }
}

#[test]
fn the_guide_shows_the_table_that_the_records_give() {
    const START: &str = "<!-- computed -->\n";
    const END: &str = "<!-- end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pick-a-model.md");
    let guide = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = guide.split_once(START).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let renewed = format!("{before}{START}{}{END}{after}", table());
    if std::env::var_os("ICLLAMA_UPDATE").is_some() {
        std::fs::write(&path, &renewed).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept == renewed,
        "docs/pick-a-model.md does not show what bench/record says; scripts/bench-record.sh renews it"
    );
}
