//! Where the proxy is that `ringlane ctl` and `ringlane top` speak to, as the command line says it.

use std::path::PathBuf;

use clap::Args;

use super::client::{Client, DEFAULT_ADDRESS, reachable};
use super::say;
use crate::config::{Admin, Reading};

/// Options that say where a proxy is.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// Where the status listener is, HOST:PORT
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<String>,
    /// The proxy's configuration, for the address in its [admin] and the token that orders need; files that it names are read too
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl Place {
    /// `[admin]` of the configuration, when one is given.
    ///
    /// # Errors
    /// A sentence for the user: the configuration does not serve.
    pub(super) fn configured(&self) -> Result<Option<Admin>, String> {
        let Some(path) = &self.config else {
            return Ok(None);
        };
        let Reading { config, complaints } = Reading::load(path);
        let refused = || {
            for complaint in &complaints {
                say(&format!("{complaint}\n"));
            }
            format!("{} is refused", path.display())
        };
        let off = || format!("{} has the status listener off", path.display());
        config.ok_or_else(refused)?.admin.ok_or_else(off).map(Some)
    }

    /// A client of the status listener.
    ///
    /// # Errors
    /// A sentence for the user: no address is known.
    pub(super) fn client(&self, configured: Option<&Admin>) -> Result<Client, String> {
        let configured = configured.map(|admin| reachable(admin.address));
        let address = match (&self.admin, configured) {
            (Some(address), _) => address.clone(),
            (None, Some(address)) if address.port() == 0 => {
                return Err("[admin] leaves its port to the kernel: give --admin".to_owned());
            }
            (None, Some(address)) => address.to_string(),
            (None, None) => DEFAULT_ADDRESS.to_owned(),
        };
        Client::new(&address)
    }

    /// A client for who gives no orders and needs no token. With an address given the configuration is not read.
    ///
    /// # Errors
    /// As [`Place::configured`] and [`Place::client`].
    pub(super) fn reader(&self) -> Result<Client, String> {
        let configured = match self.admin {
            Some(_) => None,
            None => self.configured()?,
        };
        self.client(configured.as_ref())
    }
}
