//! Files that change while they are read, disks that are full, and Ctrl-C: an error that names the file, and nothing that is
//! half there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use model_core::fixtures::TinyLlama;
use model_core::gguf::write::{Layout, NewTensor};
use model_core::gguf::{GgmlType, Metadata};

use crate::common::endpoint::counter_wasm;
use crate::common::hub::{Defects, Hub};
use crate::common::{command, tiny};

/// Names of files, without those of folders, anywhere below one.
fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => names.extend(files_below(&entry.path())),
            false => names.push(entry.file_name().into_string().unwrap()),
        }
    }
    names.sort_unstable();
    names
}

/// The command in a shell that lets no file grow beyond so many blocks of 512 or 1024 bytes, as a full disk would not.
fn with_little_room(blocks: u32, args: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_icllama")]).args(args);
    shell.stdin(Stdio::null());
    shell
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A model file of two gibibytes that are not there: zeros enough for many seconds of quantizing.
struct Sparse {
    folder: tempfile::TempDir,
    input: PathBuf,
    output: PathBuf,
}

impl Sparse {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("sparse.gguf"), folder.path().join("out.gguf"));
        let tensor = NewTensor { name: "blk.0.ffn_up.weight".into(), shape: vec![1 << 15, 1 << 14], ty: GgmlType::F32 };
        let layout = Layout::new(&Metadata::default(), &[tensor]).unwrap();
        fs::write(&input, &layout.header).unwrap();
        OpenOptions::new().write(true).open(&input).unwrap().set_len(layout.file_bytes()).unwrap();
        Self { folder, input, output }
    }

    fn args(&self) -> [&str; 5] {
        ["quantize", self.input.to_str().unwrap(), self.output.to_str().unwrap(), "--type", "Q8_0"]
    }

    /// Quantizes, and waits until some of the output is written.
    fn begin(&self) -> Child {
        let child = command(&self.args()).stderr(Stdio::piped()).spawn().unwrap();
        let written = || {
            let entries = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
            entries.filter(|entry| entry.path() != self.input).any(|entry| entry.metadata().unwrap().len() > 0)
        };
        wait_until("some output is written", written);
        child
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_model_that_is_cut_off_while_it_is_read_is_an_error_and_no_crash() {
    let sparse = Sparse::new();
    let child = sparse.begin();
    OpenOptions::new().write(true).open(&sparse.input).unwrap().set_len(100_000).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.status);
    assert!(text(&ended).contains(&format!("{} was changed while it was read", sparse.input.display())), "{ended:?}");
    assert_eq!(files_below(sparse.folder.path()), ["sparse.gguf"]);
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let sparse = Sparse::new();
    let child = sparse.begin();
    signal(&child, "-INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), text(&ended).as_str()), (Some(130), "error: interrupted\n"));
    assert_eq!(files_below(sparse.folder.path()), ["sparse.gguf"]);
}

#[test]
fn a_full_disk_is_told_with_the_file_and_what_is_missing() {
    let sparse = Sparse::new();
    let full = with_little_room(9_000, &sparse.args()).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    let told = text(&full);
    assert!(told.contains(&format!("no space is left for {}: ", sparse.output.display())), "{told}");
    assert!(told.contains("of its 544.0 MiB are missing"), "{told}");
    assert_eq!(files_below(sparse.folder.path()), ["sparse.gguf"]);
}

#[test]
fn a_trace_that_does_not_fit_is_not_begun() {
    let tiny = tiny();
    let (path, trace) = (tiny.path(), tiny.folder.path().join("trace.json"));
    let args = ["run", &path, "-p", "Hello", "--raw", "-n", "8", "--temp", "0", "--trace", trace.to_str().unwrap()];
    let full = with_little_room(4, &args).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(text(&full).contains(&format!("no space is left for {}: ", trace.display())), "{}", text(&full));
    assert_eq!(files_below(tiny.folder.path()), ["tiny.gguf"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let tiny = tiny();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = command(&["tokenize", &tiny.path(), "-p", "Hello"]).stdout(full).output().unwrap();
    assert!(ended.status.code() == Some(1) && text(&ended).contains("No space left"), "{ended:?}");
}

/// The command with the hub and a cache of its own.
fn with_hub<'a>(command: &'a mut Command, hub: &Hub, home: &Path) -> &'a mut Command {
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", home).env_remove("HF_TOKEN").stderr(Stdio::piped())
}

#[test]
fn a_download_that_does_not_fit_or_is_interrupted_leaves_no_model_and_goes_on_later() {
    let (bytes, home) = (TinyLlama::default().build(), tempfile::tempdir().unwrap());
    let hub = Hub::serve(&[("me/tiny/tiny.gguf", bytes.clone())], None);
    let args = ["inspect", "hf:me/tiny/tiny.gguf", "--json"];
    let is_part = |name: &String| name.ends_with(".part") || name.ends_with(".lock");

    let full = with_hub(&mut with_little_room(16, &args), &hub, home.path()).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(text(&full).contains("no space is left for hf:me/tiny/tiny.gguf in the cache "), "{}", text(&full));
    assert!(text(&full).contains(" are missing; free as much and run the command again"), "{}", text(&full));
    assert!(files_below(home.path()).iter().all(is_part), "{:?}", files_below(home.path()));

    hub.requests();
    hub.set_defects(Defects { stall_after: Some(20_000), ..Defects::default() });
    let child = with_hub(&mut command(&args), &hub, home.path()).spawn().unwrap();
    wait_until("it is asked for", || hub.requests().iter().any(|request| request.path.starts_with("/blobs/")));
    std::thread::sleep(Duration::from_millis(100));
    // It ends as by Ctrl-C, which jobs in the background of a script would not hear.
    signal(&child, "-TERM");
    assert!(!child.wait_with_output().unwrap().status.success());
    assert!(files_below(home.path()).iter().all(is_part), "{:?}", files_below(home.path()));

    hub.set_defects(Defects::default());
    let whole = with_hub(&mut command(&args), &hub, home.path()).output().unwrap();
    assert!(whole.status.success(), "{}", text(&whole));
    assert!(fs::read(home.path().join("hub/models--me--tiny/snapshots/c0ffee/tiny.gguf")).unwrap() == bytes);
}

#[test]
fn a_replica_that_cannot_be_saved_says_so_and_keeps_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (state, wasm) = (folder.path().join("state"), folder.path().join("counter.wasm"));
    fs::write(&wasm, counter_wasm()).unwrap();
    let start = |mut shell: Command| {
        let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut started = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut started)
            .unwrap();
        child
    };
    let paths = [state.to_str().unwrap(), wasm.to_str().unwrap()];
    let args = ["replica", "--port", "0", "--save-every", "0", "--state", paths[0], "--install", "--wasm", paths[1]];
    let whole = start(command(&args));
    signal(&whole, "-INT");
    assert!(whole.wait_with_output().unwrap().status.success());
    let saved = files_below(&state);

    // Another module makes everything to be saved anew, and its memory of 64 KiB does not fit.
    fs::write(&wasm, wat::parse_str("(module (memory 1) (data (i32.const 0) \"other\"))").unwrap()).unwrap();
    let full = start(with_little_room(32, &args));
    signal(&full, "-INT");
    let ended = full.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(text(&ended).contains("cannot write") && text(&ended).contains(paths[0]), "{}", text(&ended));
    assert_eq!(files_below(&state), saved);
}
