//! Sending a model file to a deployed canister: what is missing of it, in chunks, several at a time, until it answers.

mod chunks;
mod estimate;
mod job;
mod meter;

pub use chunks::Chunk;
pub use estimate::Estimate;
pub use job::{Job, Settings, Stage, Summary};
