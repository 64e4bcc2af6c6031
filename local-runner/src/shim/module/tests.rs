//! One refused module per rule.
