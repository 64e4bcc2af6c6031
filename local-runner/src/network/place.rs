//! Networks by name or address. Knows what is the Internet Computer itself, whose key is known, and what is not.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use ic_agent::agent::route_provider::RoundRobinRouteProvider;

/// The Internet Computer's API.
const IC_URL: &str = "https://icp-api.io";
/// Where `icllama replica` and dfx's local replica serve unless told otherwise.
const LOCAL_URL: &str = "http://127.0.0.1:4943";
/// Hosts whose answers the Internet Computer's own key certifies.
const IC_DOMAINS: [&str; 4] = ["icp-api.io", "ic0.app", "icp0.io", "internetcomputer.org"];

/// A network with canisters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The Internet Computer.
    Ic,
    /// This machine, at the usual port.
    Local,
    /// Another endpoint, `http://` or `https://`.
    Url(String),
}

impl Network {
    /// Where requests go.
    pub fn url(&self) -> &str {
        match self {
            Self::Ic => IC_URL,
            Self::Local => LOCAL_URL,
            Self::Url(url) => url,
        }
    }

    /// Whether it is the Internet Computer itself, whose root key is built in and never asked for.
    pub fn is_mainnet(&self) -> bool {
        let uri = self.url().parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
        let below = |rest: &str| rest.is_empty() || rest.ends_with('.');
        IC_DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(below))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ic" => Ok(Self::Ic),
            "local" => Ok(Self::Local),
            _ if !text.starts_with("http://") && !text.starts_with("https://") => {
                Err("it must be ic, local or a URL that begins with http:// or https://".to_owned())
            }
            _ => match RoundRobinRouteProvider::new(vec![text]) {
                Ok(_) => Ok(Self::Url(text.trim_end_matches('/').to_owned())),
                Err(reason) => Err(reason.to_string()),
            },
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ic => "ic",
            Self::Local => "local",
            Self::Url(url) => url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        assert_eq!("ic".parse(), Ok(Network::Ic));
        assert_eq!("local".parse(), Ok(Network::Local));
        assert_eq!("http://localhost:8000/".parse(), Ok(Network::Url("http://localhost:8000".to_owned())));
        for wrong in ["", "mainnet", "ftp://x", "http://", "http://1.2.3.999", "https://a b"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_internet_computer_is_trusted_without_asking_for_its_key() {
        for (network, expected) in [
            ("ic", true),
            ("https://ic0.app", true),
            ("https://abcde.icp0.io/", true),
            ("local", false),
            ("https://notic0.app", false),
            ("https://ic0.app.example.org", false),
            ("http://127.0.0.1:8000", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().is_mainnet(), expected, "{network}");
        }
    }
}
