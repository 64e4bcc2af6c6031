//! What each supported architecture is made of: data for the one block implementation. Numbers come from the file.

use crate::math::Pairing;

/// The function inside the gated feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The Gaussian error linear unit in its approximation by a hyperbolic tangent.
    Gelu,
}

/// Tensors with a divisor for each rotary frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactorTensors {
    /// None, whatever the file's context extension.
    None,
    /// Long and short ones where the file says `longrope`, otherwise one.
    ByScaling,
    /// Long and short ones.
    LongAndShort,
}

/// Which layers a sliding window of the file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    /// None: the models do not use what their files say.
    Ignored,
    /// All.
    All,
    /// All but the last of so many, unless the file has another pattern. They turn by a base of their own.
    AllBut(usize),
}

/// An architecture.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    pub pairing: Pairing,
    pub factors: FactorTensors,
    pub activation: Activation,
    /// Whether each head of queries and keys is normalised before it turns.
    pub normalizes_heads: bool,
    /// Whether the outputs of attention and feed-forward network are normalised before they join the residual stream.
    pub normalizes_outputs: bool,
    /// Whether one tensor holds the rows of the gate and, behind them, those of `up`.
    pub fuses_gate_and_up: bool,
    /// Whether embeddings are multiplied by the root of their width.
    pub scales_embedding: bool,
    /// The number of layers of a size whose scores are scaled by the embedding's width per head instead of a head's.
    pub scales_by_width_at: Option<usize>,
    pub windows: Windows,
}

/// What `llama` has, from which the others differ.
const LLAMA: Architecture = Architecture {
    name: "llama",
    pairing: Pairing::Neighbours,
    factors: FactorTensors::ByScaling,
    activation: Activation::Silu,
    normalizes_heads: false,
    normalizes_outputs: false,
    fuses_gate_and_up: false,
    scales_embedding: false,
    scales_by_width_at: None,
    windows: Windows::All,
};

/// What `qwen2` has.
const QWEN2: Architecture = Architecture {
    name: "qwen2",
    pairing: Pairing::Halves,
    factors: FactorTensors::None,
    windows: Windows::Ignored,
    ..LLAMA
};

/// All that are supported.
pub(super) const ARCHITECTURES: [Architecture; 5] = [
    LLAMA,
    QWEN2,
    Architecture { name: "qwen3", normalizes_heads: true, ..QWEN2 },
    Architecture {
        name: "phi3",
        pairing: Pairing::Halves,
        factors: FactorTensors::LongAndShort,
        fuses_gate_and_up: true,
        ..LLAMA
    },
    Architecture {
        name: "gemma3",
        activation: Activation::Gelu,
        normalizes_heads: true,
        normalizes_outputs: true,
        scales_embedding: true,
        // The 27B model.
        scales_by_width_at: Some(62),
        windows: Windows::AllBut(6),
        ..QWEN2
    },
];

/// Architectures that can be loaded.
pub const SUPPORTED_ARCHITECTURES: &[&str] = &names(&ARCHITECTURES);

const fn names<const N: usize>(architectures: &[Architecture; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = architectures[i].name;
        i += 1;
    }
    names
}

/// The architecture of that name.
pub(super) fn named(name: &str) -> Option<&'static Architecture> {
    const ALL: &[Architecture] = &ARCHITECTURES;
    ALL.iter().find(|architecture| architecture.name == name)
}
