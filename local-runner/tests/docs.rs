//! The guides in `docs`: error messages that they explain are those of the program, and what they point to is there.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// How far apart two parts of a message may be in the source.
const SAME_MESSAGE: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a folder whose name ends so.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// The program's source, with string literals as they are in messages: on one line, without escapes.
fn source() -> String {
    let folders = ["model-core/src", "canister/src", "local-runner/src"];
    let files = folders.into_iter().flat_map(|folder| files(&root().join(folder), "rs"));
    let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace("\\\"", "\"")
}

/// Whether the parts follow each other somewhere, as those of one message do.
fn has_message(source: &str, parts: &[&str]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return true };
    source.match_indices(first).any(|(at, _)| {
        let mut from = at + first.len();
        rest.iter().all(|part| {
            let end = source.len().min(from + SAME_MESSAGE);
            let near = source.get(from..end).or_else(|| source.get(from..)).unwrap_or_default();
            near.find(part).is_some_and(|at| {
                from += at + part.len();
                true
            })
        })
    })
}

#[test]
fn messages_that_are_explained_are_messages_of_the_program() {
    let (guide, source) = (fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap(), source());
    let headings = guide.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let mut count = 0;
    for heading in headings {
        let parts: Vec<_> = heading.split('…').map(str::trim).filter(|part| !part.is_empty()).collect();
        assert!(parts.iter().any(|part| part.len() >= 12), "{heading}: too little of a message");
        assert!(has_message(&source, &parts), "{heading}: no message of the program");
        count += 1;
    }
    assert!(count > 20 && !has_message(&source, &["the port is haunted by", "ghosts"]));
}

#[test]
fn guides_point_to_files_that_are_there() {
    let guides = files(&root().join("docs"), "md").into_iter().chain([root().join("README.md")]);
    for guide in guides {
        let (text, folder) = (fs::read_to_string(&guide).unwrap(), guide.parent().unwrap());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let is_here = !link.contains("://") && !path.is_empty();
            assert!(!is_here || folder.join(path).exists(), "{}: {link} is not there", guide.display());
        }
    }
}
