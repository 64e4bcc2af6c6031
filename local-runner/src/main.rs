//! The icllama command.
fn main() {}
