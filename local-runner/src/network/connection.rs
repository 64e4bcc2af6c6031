//! Calls to one canister on one network. An update call is signed once and sent until its answer is known, so that a bad
//! connection does not have it executed twice; answers are certified or signed by nodes, and that is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use candid::Principal;
use ic_agent::agent::CallResponse;
use ic_agent::agent::signed::SignedUpdate;
use ic_agent::{Agent, AgentError};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};

use super::retry::{Failure, Patience};
use super::{Network, NetworkError, Signer};

/// How long a signed call may travel and wait; the platform admits five minutes. The agent rounds down to whole minutes.
const EXPIRY: Duration = Duration::from_secs(4 * 60);
/// How long one attempt of a call may take, the canister's computing included.
const CALL_TIME: Duration = Duration::from_secs(240);
/// How long one attempt of a query may take.
const QUERY_TIME: Duration = Duration::from_secs(60);
/// Attempts to reach a network that has never answered: it may be a bad connection, but is probably a wrong address.
const FIRST_FAILURES: u32 = 4;
/// Bytes of a call's envelope besides its argument: sender, canister, method, expiry, nonce, key and signature.
const ENVELOPE_BYTES: u64 = 320;

/// Methods that can be called again after a call of which nobody knows what became: doing it twice is doing it once.
const REPEATABLE: [&str; 11] = [
    "upload_begin",
    "upload_chunk",
    "upload_commit",
    "upload_status",
    "model_status",
    "config_set",
    "session_cancel",
    "session_tokens",
    "session_digests",
    "session_logprobs",
    "session_logits",
];

/// A canister that answered.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    threads: Threads,
    agent: Agent,
    network: Network,
    canister: Principal,
    caller: Principal,
    patience: Patience,
    retries: AtomicU64,
}

/// Threads that do the network's work.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn start() -> Result<Self, NetworkError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(NetworkError::Start)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Threads {
    /// The last clone of a connection may be in a task of these threads, which cannot wait for their own end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Connection {
    /// Reaches the network; the root key is asked for unless it is the Internet Computer's.
    ///
    /// # Errors
    /// If the network does not answer.
    pub fn open(
        network: &Network,
        canister: Principal,
        signer: Signer,
        patience: Patience,
    ) -> Result<Self, NetworkError> {
        let threads = Threads::start()?;
        let unreachable = |reason: AgentError| NetworkError::Unreachable {
            network: network.clone(),
            url: network.url().to_owned(),
            reason: describe(&reason),
        };
        let builder = Agent::builder().with_url(network.url()).with_arc_identity(signer.identity);
        let agent = builder.with_ingress_expiry(EXPIRY).build().map_err(unreachable)?;
        threads.handle.block_on(greet(&agent, network, &patience)).map_err(unreachable)?;
        let (network, caller, retries) = (network.clone(), signer.principal, AtomicU64::new(0));
        Ok(Self { inner: Arc::new(Inner { threads, agent, network, canister, caller, patience, retries }) })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// The canister.
    pub fn canister(&self) -> Principal {
        self.inner.canister
    }

    /// Who calls.
    pub fn caller(&self) -> Principal {
        self.inner.caller
    }

    /// How often something had to be sent again.
    pub fn retries(&self) -> u64 {
        self.inner.retries.load(Ordering::Relaxed)
    }

    /// Bytes of the message that carries an argument.
    pub fn message_bytes(argument: usize) -> u64 {
        argument as u64 + ENVELOPE_BYTES
    }

    /// Waits for work of the network. Not to be called by a thread that runs such work.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.inner.threads.handle.block_on(work)
    }

    /// Makes an update call and waits for its certified answer.
    ///
    /// # Errors
    /// [`NetworkError`] if it is rejected or cannot be made.
    pub fn update(&self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        self.block_on(self.updating(method, arg))
    }

    /// Makes a query and checks the node's signature.
    ///
    /// # Errors
    /// [`NetworkError`] if it is rejected or cannot be made.
    pub fn query(&self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        self.block_on(self.querying(method, arg))
    }

    /// Asks the management canister about the canister.
    ///
    /// # Errors
    /// [`NetworkError`] if it is rejected or cannot be made.
    pub fn query_management(&self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        self.block_on(self.asking(Principal::management_canister(), method, arg))
    }

    /// Makes an update call.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn updating(&self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        let Inner { agent, canister, caller, .. } = &*self.inner;
        let mut failures = 0;
        loop {
            let signed = agent.update(canister, method).with_arg(arg.clone()).sign();
            let signed = signed.map_err(|error| NetworkError::of(error, method, *caller))?;
            let error = match self.deliver(&signed, &mut failures).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match Failure::of(&error) {
                Failure::Final => return Err(NetworkError::of(error, method, *caller)),
                Failure::Expired if !REPEATABLE.contains(&method) => {
                    return Err(NetworkError::Unknown { method: method.to_owned(), reason: describe(&error) });
                }
                _ => self.pause(method, &error, &mut failures).await?,
            }
        }
    }

    /// Sends the same call until it is answered, refused, or as often failed as patience allows.
    async fn deliver(&self, signed: &SignedUpdate, failures: &mut u32) -> Result<Vec<u8>, AgentError> {
        loop {
            let attempt = timeout(CALL_TIME, self.submit(signed)).await;
            let error = match attempt {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => return Err(AgentError::TimeoutWaitingForResponse()),
            };
            if Failure::of(&error) != Failure::Unanswered || *failures + 1 >= self.inner.patience.failures {
                return Err(error);
            }
            self.count(failures).await;
        }
    }

    async fn submit(&self, signed: &SignedUpdate) -> Result<Vec<u8>, AgentError> {
        let Inner { agent, canister, .. } = &*self.inner;
        match agent.update_signed(*canister, signed.signed_update.clone()).await? {
            CallResponse::Response(reply) => Ok(reply),
            CallResponse::Poll(id) => Ok(agent.wait(&id, *canister).await?.0),
        }
    }

    /// Makes a query.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn querying(&self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        self.asking(self.inner.canister, method, arg).await
    }

    async fn asking(&self, of: Principal, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, NetworkError> {
        let Inner { agent, canister, .. } = &*self.inner;
        let query = || agent.query(&of, method).with_effective_canister_id(*canister).with_arg(arg.clone());
        self.patiently(method, async || query().call().await).await
    }

    /// Asks until there is an answer, or there were too many failures. What asks must change nothing.
    async fn patiently<T>(
        &self,
        method: &str,
        ask: impl AsyncFn() -> Result<T, AgentError>,
    ) -> Result<T, NetworkError> {
        let mut failures = 0;
        loop {
            let error = match timeout(QUERY_TIME, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => AgentError::TimeoutWaitingForResponse(),
            };
            if Failure::of(&error) == Failure::Final {
                return Err(NetworkError::of(error, method, self.inner.caller));
            }
            self.pause(method, &error, &mut failures).await?;
        }
    }

    /// Waits before the next attempt, unless there were too many.
    async fn pause(&self, method: &str, error: &AgentError, failures: &mut u32) -> Result<(), NetworkError> {
        if *failures + 1 >= self.inner.patience.failures {
            let (method, failures) = (method.to_owned(), *failures + 1);
            return Err(NetworkError::GivenUp { method, failures, reason: describe(error) });
        }
        self.count(failures).await;
        Ok(())
    }

    async fn count(&self, failures: &mut u32) {
        self.inner.retries.fetch_add(1, Ordering::Relaxed);
        sleep(self.inner.patience.pause(*failures)).await;
        *failures += 1;
    }

    /// What the network certifies of the canister; nothing where it is not there.
    ///
    /// # Errors
    /// [`NetworkError`] if the network does not answer.
    pub fn certified(&self) -> Result<Certified, NetworkError> {
        let Inner { agent, canister, .. } = &*self.inner;
        self.block_on(self.patiently("read_state", async || {
            let module_hash = present(agent.read_state_canister_module_hash(*canister).await)?;
            let controllers = present(agent.read_state_canister_controllers(*canister).await)?.unwrap_or_default();
            Ok(Certified { module_hash, controllers })
        }))
    }

    /// Nodes of the canister's subnet, which prices depend on; none where there are no other prices than the usual.
    pub fn nodes(&self) -> Option<u64> {
        let Inner { agent, canister, network, .. } = &*self.inner;
        if !network.is_mainnet() {
            return None;
        }
        let subnet = self.block_on(agent.get_subnet_by_canister(canister)).ok()?;
        u64::try_from(subnet.iter_nodes().count()).ok().filter(|nodes| *nodes > 0)
    }
}

/// What a network certifies of a canister.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// SHA-256 of the module as it was installed.
    pub module_hash: Option<Vec<u8>>,
    /// Who controls the canister.
    pub controllers: Vec<Principal>,
}

/// What the state tree has, or that it proves to have nothing.
fn present<T>(looked_up: Result<T, AgentError>) -> Result<Option<T>, AgentError> {
    match looked_up {
        Err(AgentError::LookupPathAbsent(_)) => Ok(None),
        known => known.map(Some),
    }
}

/// Makes sure that something answers, and asks for the root key unless that is known.
async fn greet(agent: &Agent, network: &Network, patience: &Patience) -> Result<(), AgentError> {
    let mut failures = 0;
    loop {
        let answer = timeout(QUERY_TIME, async {
            if network.is_mainnet() { agent.status().await.map(|_| ()) } else { agent.fetch_root_key().await }
        });
        let answer = answer.await;
        let error = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => AgentError::TimeoutWaitingForResponse(),
        };
        failures += 1;
        if Failure::of(&error) == Failure::Final || failures >= FIRST_FAILURES {
            return Err(error);
        }
        sleep(patience.pause(failures - 1)).await;
    }
}

/// The error with its causes: that of a transport hides the interesting part behind "error sending request".
fn describe(error: &AgentError) -> String {
    use ic_agent::agent_error::TransportError;
    let AgentError::TransportError(TransportError::Reqwest(error)) = error else { return error.to_string() };
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
