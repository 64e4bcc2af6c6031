//! The canister's methods as typed calls over the network, from anywhere and several at a time.

use anyhow::{Context, Result};
use candid::CandidType;
use serde::de::DeserializeOwned;

use super::Connection;
use crate::backend::{no_argument, result, value};

/// An icllama canister that is deployed somewhere.
#[derive(Clone)]
pub struct Remote {
    connection: Connection,
}

impl Remote {
    /// The canister at the other end.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// How its calls get there.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Calls a query method that takes nothing and refuses nothing.
    ///
    /// # Errors
    /// If the call fails.
    pub fn read<R: CandidType + DeserializeOwned>(&self, method: &str) -> Result<R> {
        self.connection.block_on(self.reading(method))
    }

    /// [`Self::read`], several at a time.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn reading<R: CandidType + DeserializeOwned>(&self, method: &str) -> Result<R> {
        value(method, &self.connection.querying(method, no_argument()?).await?)
    }

    /// [`Self::reading`] by an update call, which takes all earlier calls into account.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn reading_certified<R: CandidType + DeserializeOwned>(&self, method: &str) -> Result<R> {
        value(method, &self.connection.updating(method, no_argument()?).await?)
    }

    /// Calls a query method that takes one record.
    ///
    /// # Errors
    /// If the call fails, or the canister answers `Err`.
    pub fn query<A: CandidType, R: CandidType + DeserializeOwned>(&self, method: &str, arg: &A) -> Result<R> {
        result(method, &self.connection.query(method, encode(method, arg)?)?)
    }

    /// Calls an update method that takes one record.
    ///
    /// # Errors
    /// If the call fails, or the canister answers `Err`.
    pub fn update<A: CandidType, R: CandidType + DeserializeOwned>(&self, method: &str, arg: &A) -> Result<R> {
        self.connection.block_on(self.updating(method, arg))
    }

    /// [`Self::update`], several at a time.
    ///
    /// # Errors
    /// If the call fails, or the canister answers `Err`.
    pub async fn updating<A: CandidType, R: CandidType + DeserializeOwned>(&self, method: &str, arg: &A) -> Result<R> {
        result(method, &self.connection.updating(method, encode(method, arg)?).await?)
    }
}

fn encode(method: &str, arg: &impl CandidType) -> Result<Vec<u8>> {
    candid::encode_one(arg).with_context(|| format!("cannot encode the argument of {method}"))
}
