//! The service on a fake platform.

mod access;
mod generation;
mod limits;
mod loading;
mod uploading;
