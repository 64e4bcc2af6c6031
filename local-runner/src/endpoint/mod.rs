//! A local endpoint of the Internet Computer: the shim behind the platform's HTTPS interface, for agents, command line
//! tools and browsers.
//!
//! - `server` and `api` take requests apart; `envelope` and `signature` check who sends them, `effective` which canister
//!   they are about; `call`, `query` and `read_state` answer them, `gateway` and `streaming` serve what canisters show
//!   browsers;
//! - `state` is what may be read at any time: the `tree` of which certificates show parts, `requests`, `keys`;
//! - `executor` is the thread that owns the canisters, `store` the folder that they are kept in.
//!
//! What it does and where it deviates from the platform: `docs/replica.md`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candid::Principal;

mod api;
mod call;
mod effective;
mod encoding;
mod envelope;
mod executor;
mod gateway;
mod keys;
mod query;
mod read_state;
mod requests;
mod server;
mod signature;
mod state;
mod store;
mod streaming;
mod tree;

pub use api::Refusal;
pub use effective::Effective;
pub use envelope::{EnvelopeError, Request};
pub use executor::{Log, Pace};
pub use signature::SignatureError;
pub use store::StoreError;

use crate::http::{ListenError, Listener, RateLimit, Server};
use crate::shim::engine::LoadError;
use crate::shim::{Config, Replica};
use executor::{Executor, Handle};
use keys::SubnetKeys;
use state::State;
use store::Store;

/// How an endpoint is set up.
pub struct Options {
    /// Address to listen at.
    pub host: IpAddr,
    /// Port to listen at; 0 for any that is free.
    pub port: u16,
    /// Folder that the replica is kept in; none to forget everything.
    pub folder: Option<PathBuf>,
    /// How often rounds and saves happen.
    pub pace: Pace,
    /// How long a synchronous call waits before the client has to poll.
    pub sync: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Requests that one client may make per second; none for as many as it likes.
    pub requests_per_second: Option<NonZeroU32>,
    /// Set-up of the replica; key, seed and time are the endpoint's own.
    pub config: Config,
    /// Told about every message.
    pub log: Log,
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine does not run here.
    #[error(transparent)]
    Engine(#[from] LoadError),
    /// The system gives no threads.
    #[error("cannot start the endpoint's threads: {0}")]
    Threads(io::Error),
}

/// What requests are answered with.
struct Shared {
    state: Arc<State>,
    executor: Handle,
    sync: Duration,
    rate_limit: Option<RateLimit>,
}

/// An endpoint that does not answer yet: its port is taken, its replica restored.
pub struct Setup {
    /// The replica, to be changed before anybody else can.
    pub replica: Replica,
    listener: Listener,
    keys: SubnetKeys,
    store: Option<Store>,
    pace: Pace,
    sync: Duration,
    connections: usize,
    rate_limit: Option<RateLimit>,
    log: Log,
}

impl Setup {
    /// Takes the port, and restores what is kept in the folder.
    ///
    /// # Errors
    /// If the port is taken, or the folder cannot be used.
    pub fn open(options: Options) -> Result<Self, EndpointError> {
        let Options { host, port, folder, pace, sync, connections, requests_per_second, config, log } = options;
        let listener = Listener::bind(host, port)?;
        let (mut store, keys) = match folder {
            Some(folder) => Store::open(&folder).map(|(store, keys)| (Some(store), keys))?,
            None => (None, SubnetKeys::random()),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut replica = Replica::new(Config {
            root_key: keys.root_key_der().to_vec(),
            seed: keys.random_seed(),
            start_time_ns: u64::try_from(now).unwrap_or(u64::MAX),
            ..config
        })?;
        if let Some(store) = &mut store {
            store.restore(&mut replica)?;
        }
        let rate_limit = requests_per_second.map(RateLimit::new);
        Ok(Self { replica, listener, keys, store, pace, sync, connections, rate_limit, log })
    }

    /// Begins to answer and to execute.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn serve(self) -> Result<Endpoint, EndpointError> {
        let Self { replica, listener, keys, store, pace, sync, connections, rate_limit, log } = self;
        let state = Arc::new(State::new(keys, replica.time_ns()));
        state.requests.restore(store.as_ref().map_or(&[], |store| &store.ended));
        let executor = Executor::new(replica, Arc::clone(&state), store, pace, log);
        let (executor, thread) = executor.spawn().map_err(EndpointError::Threads)?;
        let shared = Arc::new(Shared { state: Arc::clone(&state), executor: executor.clone(), sync, rate_limit });
        let server = Server::start(listener, shared, connections).map_err(EndpointError::Threads)?;
        Ok(Endpoint { state, executor, thread, server })
    }
}

/// An endpoint that answers.
pub struct Endpoint {
    state: Arc<State>,
    executor: Handle,
    thread: JoinHandle<Result<(), StoreError>>,
    server: Server,
}

impl Endpoint {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The subnet's public key in DER.
    pub fn root_key(&self) -> &[u8] {
        self.state.keys.root_key_der()
    }

    /// The subnet's id.
    pub fn subnet_id(&self) -> Principal {
        self.state.keys.subnet_id()
    }

    /// Whether it has ended by itself, which it should not.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Executes what is open, saves, and ends.
    ///
    /// # Errors
    /// If it cannot be saved.
    pub fn stop(self) -> Result<(), StoreError> {
        let Self { executor, thread, server, .. } = self;
        executor.stop();
        let saved = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        server.stop();
        saved
    }
}
