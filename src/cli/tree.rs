//! `madang tree`: the live supervision tree, from the admin listener. Also where that listener is, for other commands.

use std::time::Duration;

use clap::Args;
use madang_client::http::{self, HttpError, HttpResponse};

use super::Failure;
use super::common::{Common, Output, block_on, print};

/// The admin listener is at the Kafka port and this, unless told otherwise.
const PORT_DISTANCE: u16 = 1000;
/// Most bytes of a page.
const MAX_PAGE: usize = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Show the live supervision tree: actors, their state, mailbox depth and restarts.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang tree --server 127.0.0.1:9092")]
pub(crate) struct Tree {
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    common: Common,
}

/// Where the admin listener is.
#[derive(Debug, Default, Args)]
pub(crate) struct AdminAddress {
    /// The admin listener. Default: the host of --server, its port + 1000.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
}

impl AdminAddress {
    /// The address, as given or as it follows from the Kafka listener's.
    pub(crate) fn resolve(&self, server: &str) -> Result<String, Failure> {
        if let Some(admin) = &self.admin {
            return Ok(admin.trim_start_matches("http://").trim_end_matches('/').to_owned());
        }
        let split = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let address = split.and_then(|(host, port)| Some(format!("{host}:{}", port.checked_add(PORT_DISTANCE)?)));
        address.ok_or_else(|| {
            Failure::new(format!("no admin address follows from --server {server}")).try_this("--admin HOST:PORT")
        })
    }
}

/// Gets a page of the admin listener.
pub(crate) async fn page(address: &str, path: &str) -> Result<HttpResponse, HttpError> {
    http::get(address, path, MAX_PAGE, TIMEOUT).await
}

pub(crate) fn run(args: Tree) -> Result<(), Failure> {
    block_on(async {
        let address = args.admin.resolve(&args.common.server)?;
        let path = match args.common.print.output {
            Output::Text => "/tree",
            Output::Json => "/tree?format=json",
        };
        let answer = page(&address, path).await.map_err(|error| {
            Failure::new(error.to_string())
                .try_this("--admin HOST:PORT as `madang start` prints it; it listens on loopback unless madang.admin.listener says otherwise")
        })?;
        if answer.status != 200 {
            return Err(Failure::new(format!("{address}{path} answers with status {}", answer.status))
                .try_this("the same again; --admin HOST:PORT if this is not a Madang node"));
        }
        let mut text = String::from_utf8_lossy(&answer.body).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        print(&text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_address_follows_from_the_server() {
        let given = |admin: Option<&str>| AdminAddress { admin: admin.map(str::to_owned) };
        assert_eq!(given(None).resolve("h:9092").ok().as_deref(), Some("h:10092"));
        assert_eq!(given(None).resolve("[::1]:9092").ok().as_deref(), Some("[::1]:10092"));
        assert_eq!(given(Some("http://h:1/")).resolve("h:9092").ok().as_deref(), Some("h:1"));
        assert!(given(None).resolve("h:65000").is_err());
        assert!(given(None).resolve("h").is_err());
    }
}
