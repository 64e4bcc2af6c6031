//! The service on a fake platform.

mod access;
mod expiry;
mod generation;
mod kv_cache;
mod layout;
mod limits;
mod llm;
mod loading;
mod quotas;
mod uploading;
