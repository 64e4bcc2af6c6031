//! The guides in `docs`: error messages that they explain are those of the program, and what they point to is there. So are the
//! tests that `SECURITY.md` names.

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

/// A source file and the path of its module: `endpoint::store::tests` of `local-runner/src/endpoint/store/tests.rs`.
struct Module {
    path: Vec<String>,
    text: String,
}

impl Module {
    fn all() -> Vec<Self> {
        let folders =
            ["model-core/src", "model-core/tests", "canister/src", "local-runner/src", "local-runner/tests", "tests"];
        let read = |folder: &str| {
            let folder = root().join(folder);
            let module = |file: PathBuf| {
                let inside = file.strip_prefix(&folder).unwrap().with_extension("");
                let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
                Self { path: names.filter(|name| name != "mod").collect(), text: fs::read_to_string(&file).unwrap() }
            };
            files(&folder, "rs").into_iter().map(module).collect::<Vec<_>>()
        };
        folders.into_iter().flat_map(read).collect()
    }

    /// Whether it is the module of this path, or the module that the path says has its tests inside.
    fn is(&self, path: &[&str]) -> bool {
        let ends = |path: &[&str]| {
            path.len() <= self.path.len() && self.path.iter().rev().zip(path.iter().rev()).all(|(a, b)| a == b)
        };
        match path {
            [outer @ .., "tests"] if self.text.contains("mod tests {") && ends(outer) => !outer.is_empty(),
            _ => ends(path),
        }
    }

    fn has_test(&self, name: &str) -> bool {
        let function = format!("fn {name}(");
        self.text.match_indices(&function).any(|(at, _)| {
            let before = self.text[..at].rsplit("\n\n").next().unwrap_or_default();
            before.contains("#[test]")
        })
    }
}

/// Whether a path in a document is that of tests: a module's with `::` at its end or named `tests`, else a test's.
fn is_of_tests(modules: &[Module], named: &str) -> bool {
    let path: Vec<_> = named.trim_end_matches("::").split("::").collect();
    let is_module = modules.iter().any(|module| module.is(&path) && module.text.contains("#[test]"));
    let (name, outer) = path.split_last().unwrap();
    is_module || !named.ends_with("::") && modules.iter().any(|module| module.is(outer) && module.has_test(name))
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let (text, modules) = (fs::read_to_string(root().join("SECURITY.md")).unwrap(), Module::all());
    let is_path = |quoted: &&str| quoted.contains("::") && !quoted.contains(|c: char| c.is_whitespace() || c == '/');
    let named: Vec<_> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
    let absent: Vec<_> = named.iter().filter(|named| !is_of_tests(&modules, named)).collect();
    assert!(named.len() > 50 && absent.is_empty(), "of {} tests these are not there: {absent:?}", named.len());
    for wrong in ["access::nobody_is_admitted", "absent::", "absence::tests", "docs::root"] {
        assert!(!is_of_tests(&modules, wrong), "{wrong}");
    }
    for script in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.starts_with("scripts/")) {
        assert!(root().join(script).is_file(), "{script} is not there");
    }
}
