//! Model files of the Hugging Face hub, by name: `hf:OWNER/REPO/FILE.gguf`, with `@REVISION` if need be. They are kept in the
//! cache that the hub's other tools use. Knows nothing of what is in a file.
//!
//! Environment: `HF_ENDPOINT` (another hub), `HF_HOME` (folder of cache and token), `HF_TOKEN` (else the token that
//! `hf auth login` left), and the usual proxy variables.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use sha2::{Digest, Sha256};

use crate::output::{byte_size, note};
use crate::progress::Progress;
use crate::split_file::part_names;

/// What a name of a file on the hub begins with.
pub const PREFIX: &str = "hf:";
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";

/// A file on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `OWNER/REPO`
    repo: String,
    /// Path in the repository.
    file: String,
    /// Branch, tag or commit.
    revision: String,
}

/// Why a file of the hub is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No such file, revision or repository.
    #[error("{endpoint} has no {file}; look at the names of its files on the hub")]
    NotFound {
        /// Where it was looked for.
        endpoint: String,
        /// What was looked for.
        file: HubFile,
    },
    /// The hub does not give it to us.
    #[error(
        "{endpoint} refuses {file} (status {status}): it is private, gated or not there; accept its conditions on the hub \
         and set HF_TOKEN to a token of yours"
    )]
    Refused {
        /// Where it was asked for.
        endpoint: String,
        /// What was asked for.
        file: HubFile,
        /// HTTP status: 401 or 403.
        status: u16,
    },
    /// The hub answers something else than the file.
    #[error("{endpoint} does not serve {file}: {reason}; try again later")]
    Unusable {
        /// Where it was asked for.
        endpoint: String,
        /// What was asked for.
        file: HubFile,
        /// What came instead.
        reason: String,
    },
    /// The hub cannot be reached, or the connection broke.
    #[error("no connection to {endpoint}: {reason}; run the command again to go on where it stopped")]
    NoConnection {
        /// Where it was tried.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// The medium has no room.
    #[error(
        "no space is left for {file} in the cache {}: {} of its {} are missing; free as much and run the command again to go on, \
         or set HF_HOME",
        folder.display(), byte_size(*missing), byte_size(*bytes)
    )]
    DiskFull {
        /// The file.
        file: HubFile,
        /// The cache.
        folder: PathBuf,
        /// What the file takes.
        bytes: u64,
        /// What of it has not come.
        missing: u64,
    },
    /// The cache cannot be written or read.
    #[error("the cache {} cannot be used: {reason}; check its permissions, or set HF_HOME", folder.display())]
    Cache {
        /// The cache.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process fetches the same file.
    #[error("another process is fetching {file}; wait for it")]
    Busy {
        /// The file.
        file: HubFile,
    },
    /// The bytes are not those that the hub announced.
    #[error(
        "{file} arrived damaged: its sha256 is {found}, {expected} was announced; it was deleted, run the command again"
    )]
    Damaged {
        /// The file.
        file: HubFile,
        /// Announced digest.
        expected: String,
        /// Digest of what came.
        found: String,
    },
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.repo, self.file)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl HubFile {
    /// Reads a name; none if it is not one of the hub's.
    ///
    /// # Errors
    /// What is wrong with a name that begins like one.
    pub fn parse(name: &str) -> Option<Result<Self, String>> {
        let name = name.strip_prefix(PREFIX)?;
        let (path, revision) = name.rsplit_once('@').unwrap_or((name, DEFAULT_REVISION));
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(repo), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            return Some(Err(
                "a file of the hub is named hf:OWNER/REPO/FILE.gguf, or hf:OWNER/REPO/FILE.gguf@REVISION".into(),
            ));
        };
        let all = [owner, repo].into_iter().chain(file.split('/')).chain(revision.split('/'));
        if let Some(wrong) = all.into_iter().find(|part| !is_plain(part)) {
            return Some(Err(format!("{wrong:?} is no part of a name on the hub")));
        }
        Some(Ok(Self { repo: format!("{owner}/{repo}"), file: file.into(), revision: revision.into() }))
    }

    /// Last part of the path.
    pub fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or_default()
    }

    /// The file in the cache, fetched if it is not there yet; of a split model all parts.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn fetch(&self) -> Result<PathBuf, HubError> {
        let hub = Hub::from_env();
        for part in part_names(&self.file).unwrap_or_default() {
            hub.fetch(&Self { file: part, ..self.clone() })?;
        }
        hub.fetch(self)
    }
}

/// Whether a part of a path means itself in paths and URLs.
fn is_plain(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    !matches!(part, "" | "." | "..") && part.bytes().all(plain)
}

/// A hub and the cache of its files.
struct Hub {
    endpoint: String,
    cache: hf_hub::Cache,
    token: Option<String>,
}

impl Hub {
    fn from_env() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let cache = hf_hub::Cache::from_env();
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let token = set("HF_TOKEN").map(|token| token.trim().to_owned()).or_else(|| cache.token());
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), cache, token }
    }

    fn fetch(&self, file: &HubFile) -> Result<PathBuf, HubError> {
        let repo = Repo::with_revision(file.repo.clone(), RepoType::Model, file.revision.clone());
        if let Some(path) = self.cache.repo(repo.clone()).get(&file.file) {
            return Ok(path);
        }
        let far = Far::default();
        let failed = |error| self.error(file, &far, error);
        let api = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("icllama", env!("CARGO_PKG_VERSION"));
        let repo: ApiRepo = api.build().map_err(failed)?.repo(repo);
        let path = repo.download_with_progress(&file.file, Bar::new(file, &far)).map_err(failed)?;
        self.verify(file, &path)?;
        Ok(path)
    }

    /// Compares a file that came with the digest that the hub announced: large files are named by it in the cache.
    fn verify(&self, file: &HubFile, path: &Path) -> Result<(), HubError> {
        let failed = |reason: io::Error| self.error(file, &Far::default(), reason.into());
        let blob = path.canonicalize().map_err(failed)?;
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(()); // a small file, named by its digest in git
        }
        let found = sha256(&blob).map_err(failed)?;
        if found.eq_ignore_ascii_case(&name) {
            return Ok(());
        }
        let deleted = fs::remove_file(path).and_then(|()| fs::remove_file(&blob));
        deleted.map_err(failed)?;
        Err(HubError::Damaged { file: file.clone(), expected: name.into_owned(), found })
    }

    fn error(&self, file: &HubFile, far: &Far, error: ApiError) -> HubError {
        let (endpoint, file, folder) = (self.endpoint.clone(), file.clone(), self.cache.path().clone());
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(404) => HubError::NotFound { endpoint, file },
                ureq::Error::StatusCode(status @ (401 | 403)) => HubError::Refused { endpoint, file, status },
                ureq::Error::StatusCode(status) => {
                    HubError::Unusable { endpoint, file, reason: format!("it answers with status {status}") }
                }
                other => HubError::NoConnection { endpoint, reason: other.to_string() },
            },
            ApiError::IoError(reason) => match reason.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    let (bytes, done) = (far.bytes.load(Relaxed), far.done.load(Relaxed));
                    HubError::DiskFull { file, folder, bytes, missing: bytes.saturating_sub(done) }
                }
                kind if is_of_connections(kind) => HubError::NoConnection { endpoint, reason: reason.to_string() },
                _ => HubError::Cache { folder, reason: reason.to_string() },
            },
            ApiError::LockAcquisition(_) => HubError::Busy { file },
            other => HubError::Unusable { endpoint, file, reason: other.to_string() },
        }
    }
}

/// Whether an error of this kind comes from the network, not from the cache.
fn is_of_connections(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::*;
    matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut | InvalidData | Other)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let progress = Progress::bytes("verifying", file.metadata()?.len());
    let (mut hasher, mut block, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = io::Read::read(&mut file, &mut block)?;
        if read == 0 {
            break;
        }
        hasher.update(&block[..read]);
        done += read as u64;
        progress.set(done);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How far a download is, in bytes.
#[derive(Debug, Default, Clone)]
struct Far {
    bytes: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

/// Shows how far a download is.
struct Bar {
    label: String,
    shown: Option<Progress>,
    far: Far,
}

impl Bar {
    fn new(file: &HubFile, far: &Far) -> Self {
        Self { label: file.to_string(), shown: None, far: far.clone() }
    }
}

impl hf_hub::api::Progress for Bar {
    /// Comes a second time when the answer begins; an update with what was there already follows.
    fn init(&mut self, size: usize, _: &str) {
        if self.shown.is_none() {
            note(&format!("fetching {} ({})", self.label, byte_size(size as u64)));
        }
        self.shown = Some(Progress::bytes("fetching", size as u64));
        self.far.bytes.store(size as u64, Relaxed);
        self.far.done.store(0, Relaxed);
    }

    fn update(&mut self, size: usize) {
        let done = self.far.done.fetch_add(size as u64, Relaxed) + size as u64;
        if let Some(progress) = &self.shown {
            progress.set(done);
        }
    }

    fn finish(&mut self) {
        self.shown = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> HubFile {
        HubFile::parse(name).unwrap().unwrap()
    }

    #[test]
    fn names_have_an_owner_a_repository_a_path_and_perhaps_a_revision() {
        let file = named("hf:me/Models-GGUF/q4/a.Q4_0.gguf@refs/pr/7");
        assert_eq!((file.repo.as_str(), file.file.as_str()), ("me/Models-GGUF", "q4/a.Q4_0.gguf"));
        assert_eq!((file.revision.as_str(), file.file_name()), ("refs/pr/7", "a.Q4_0.gguf"));
        assert_eq!(named("hf:me/x/a.gguf").revision, "main");
        for name in ["hf:me/x/a.gguf", "hf:me/x/q/a.gguf@v1"] {
            assert_eq!(named(name).to_string(), name);
        }
        assert_eq!(HubFile::parse("models/hf:a.gguf"), None);
        for wrong in
            ["hf:", "hf:me/x", "hf:me/x/", "hf:me//a.gguf", "hf:me/x/../a.gguf", "hf:me/x/a b.gguf", "hf:me/x/a@"]
        {
            assert!(HubFile::parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_of_the_medium_and_of_the_connection_are_told_apart() {
        let hub = Hub { endpoint: "http://hub".into(), cache: hf_hub::Cache::new("/cache".into()), token: None };
        let of = |error: ApiError| hub.error(&named("hf:me/x/a.gguf"), &Far::default(), error);
        let io = |kind: io::ErrorKind| of(ApiError::IoError(kind.into()));
        assert!(matches!(io(io::ErrorKind::StorageFull), HubError::DiskFull { .. }));
        assert!(matches!(io(io::ErrorKind::PermissionDenied), HubError::Cache { .. }));
        assert!(matches!(io(io::ErrorKind::UnexpectedEof), HubError::NoConnection { .. }));
        let busy = of(ApiError::LockAcquisition("x.lock".into()));
        assert!(matches!(busy, HubError::Busy { .. }));
    }
}
