//! Deployed canisters: which network, as whom, and calls that survive bad connections. Knows nothing of models.

mod connection;
mod error;
mod identity;
mod place;
mod remote;
mod retry;

use anyhow::{Context, Result};
use candid::Principal;
use clap::Args;

pub use connection::{Certified, Connection};
pub use error::NetworkError;
pub use identity::{IdentityName, Signer};
pub use place::Network;
pub use remote::Remote;
pub use retry::Patience;

/// Which canister, and as whom.
#[derive(Debug, Clone, Args)]
pub struct DeployedArgs {
    /// Id of the deployed canister.
    #[arg(long, value_name = "ID", env = "ICLLAMA_CANISTER", hide_env_values = true)]
    pub canister: Option<Principal>,
    /// Who calls: a PEM file with an Ed25519, secp256k1 or P-256 key, the name of a dfx identity, or anonymous [default:
    /// anonymous].
    #[arg(long, value_name = "PEM", env = "ICLLAMA_IDENTITY", hide_env_values = true)]
    pub identity: Option<IdentityName>,
}

impl DeployedArgs {
    /// Reaches the canister.
    ///
    /// # Errors
    /// Without a canister, with an identity that cannot be used, or if the network does not answer.
    pub fn connect(&self, network: &Network) -> Result<Connection> {
        self.connect_with(network, Patience::default())
    }

    fn connect_with(&self, network: &Network, patience: Patience) -> Result<Connection> {
        let canister =
            self.canister.context("no canister given; name it with --canister ID, or in $ICLLAMA_CANISTER")?;
        let signer = self.identity.as_ref().unwrap_or(&IdentityName::Anonymous).load()?;
        Ok(Connection::open(network, canister, signer, patience)?)
    }
}

/// Which canister on which network, and as whom.
#[derive(Debug, Clone, Args)]
pub struct NetworkArgs {
    /// Where the canister is: ic (the Internet Computer), local (http://127.0.0.1:4943, where `icllama replica` and dfx serve) or
    /// a URL [default: local].
    #[arg(long, value_name = "NETWORK", env = "ICLLAMA_NETWORK", hide_env_values = true)]
    pub network: Option<Network>,
    #[command(flatten)]
    pub deployed: DeployedArgs,
}

impl NetworkArgs {
    /// The network, which is the local one unless another is given.
    pub fn network(&self) -> Network {
        self.network.clone().unwrap_or(Network::Local)
    }

    /// Reaches the canister.
    ///
    /// # Errors
    /// As [`DeployedArgs::connect`].
    pub fn connect(&self) -> Result<Connection> {
        self.deployed.connect(&self.network())
    }

    /// Reaches the canister, whose calls are made again as often as `patience` says.
    ///
    /// # Errors
    /// As [`DeployedArgs::connect`].
    pub fn connect_with(&self, patience: Patience) -> Result<Connection> {
        self.deployed.connect_with(&self.network(), patience)
    }
}
