//! The soak through `icllama replica`: every user is a thread with an agent of its own. At the end the replica is ended,
//! and started again from its folder, before the sessions that are left are finished.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use end_to_end::Icllama;
use tempfile::TempDir;

use super::agents::Agents;
use super::user::User;
use super::{Plan, Report, Sample, model, questions};

/// The command, which is built beside the tests.
fn icllama() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("icllama");
    assert!(path.exists(), "{} is missing; run cargo build -p local-runner", path.display());
    path
}

/// A running `icllama replica`.
struct Replica {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Replica {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = spawn(&folder, 0);
        Self { child, folder, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it as the system does, and starts it again.
    fn restart(&mut self) {
        let ended = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(ended.success() && self.child.wait().unwrap().success(), "the replica did not end well");
        (self.child, self.port) = spawn(&self.folder, self.port);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts a replica; answers its port.
fn spawn(folder: &TempDir, port: u16) -> (Child, u16) {
    let mut command = Command::new(icllama());
    command.args(["replica", "--json", "--save-every", "30", "--port", &port.to_string(), "--state"]);
    command.arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    let started = serde_json::Deserializer::from_reader(stdout.by_ref()).into_iter::<serde_json::Value>().next();
    let started = started.expect("the replica did not start").unwrap();
    let port = started["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    (child, port)
}

/// Has every user do something in a thread of its own.
fn together(
    users: Vec<User>,
    icllama: &Icllama<Agents>,
    task: impl Fn(&mut User, &mut Icllama<Agents>) + Sync,
    meanwhile: impl FnOnce(),
) -> Vec<User> {
    let task = &task;
    thread::scope(|scope| {
        let start = |mut user: User| {
            let mut icllama = Icllama { host: icllama.host.clone(), ..*icllama };
            scope.spawn(move || {
                task(&mut user, &mut icllama);
                user
            })
        };
        let threads: Vec<_> = users.into_iter().map(start).collect();
        meanwhile();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs it.
pub fn soak(plan: Plan) -> Report {
    let questions = questions();
    let mut replica = Replica::start();
    let mut icllama = Icllama::install(Box::new(Agents::new(replica.url())), plan.config());
    icllama.serve("soak", &model());
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    let mut samples = Vec::new();
    let users = together(
        plan.users(&questions),
        &Icllama { host: icllama.host.clone(), ..icllama },
        |user, icllama| {
            while !over.load(SeqCst) {
                user.act(icllama);
            }
        },
        || {
            let mut next_upgrade = plan.upgrades;
            while begun.elapsed() < plan.length {
                thread::sleep(next_upgrade.min(plan.length).saturating_sub(begun.elapsed()));
                if begun.elapsed() >= next_upgrade {
                    next_upgrade += plan.upgrades;
                    samples.push(Sample::take(&mut icllama, begun.elapsed()));
                    icllama.upgrade();
                }
            }
            over.store(true, SeqCst);
        },
    );
    replica.restart();
    let users = together(users, &icllama, User::end, || ());
    Report::new(&mut icllama, users, samples, begun.elapsed())
}
