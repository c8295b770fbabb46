//! `madang start`: one broker, from nothing or from what is there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use madang_cluster::configs::BrokerConfig;

use tokio::signal::unix::SignalKind;
use tokio::sync::watch;

use super::Failure;
use crate::server::{self, Server};
use crate::supervise::{self, NodeProcess};

/// Where the data is unless told otherwise.
const DEFAULT_DATA: &str = "madang-data";
/// Where clients connect unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:9092";

/// Start a broker. Needs no configuration file and no format step.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Example:\n  madang start --data /var/lib/madang --listen 0.0.0.0:9092 --set advertised.listeners=PLAINTEXT://kafka.example:9092"
)]
pub(crate) struct Start {
    /// A file of `key=value` lines: any Kafka broker key, or a `madang.*` key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory to keep data in; the same as `--set log.dirs=DIR`. Default: ./madang-data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where clients connect; the same as `--set listeners=PLAINTEXT://HOST:PORT`. Default: 127.0.0.1:9092
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where clients connect over QUIC, a UDP port; the same as `--set madang.quic.listener=HOST:PORT`.
    #[arg(long, value_name = "HOST:PORT")]
    listen_quic: Option<String>,
    /// A file in PEM: the certificate that clients over QUIC are shown; the same as `--set madang.quic.certificate=FILE`. Default: one that is made.
    #[arg(long, value_name = "FILE", requires = "quic_key")]
    quic_certificate: Option<String>,
    /// A file in PEM: its key; the same as `--set madang.quic.key=FILE`.
    #[arg(long, value_name = "FILE", requires = "quic_certificate")]
    quic_key: Option<String>,
    /// Set one key; may be given several times, and wins over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Run the broker as a process of its own, started again when it dies and killed when it hangs; other nodes are told of its death at once.
    #[arg(long)]
    supervise: bool,
}

pub(crate) fn run(start: Start) -> Result<(), Failure> {
    if start.supervise {
        return supervised(&start);
    }
    log_to_stderr();
    #[cfg(feature = "failpoints")]
    crate::failpoints::follow().map_err(|error| Failure::new(format!("fail points: {error}")))?;
    let began = Instant::now();
    let pairs = pairs(&start)?;
    let (config, idle) = BrokerConfig::parse(pairs).map_err(|error| {
        Failure::new(error.to_string()).try_this("madang start --help; the keys are Kafka's broker keys")
    })?;
    for what in idle {
        tracing::warn!("{what}");
    }
    let code = actix_rt::System::new().block_on(serve(config, began))?;
    if code == 0 { Ok(()) } else { Err(Failure::new("the broker ended because a part of it kept failing").exit(code)) }
}

/// Runs the same command without `--supervise`, again and again.
fn supervised(start: &Start) -> Result<(), Failure> {
    let config = BrokerConfig::parse(pairs(start)?).map_err(|error| Failure::new(error.to_string()))?.0;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--supervise").collect();
    let node = NodeProcess { name: "the broker".to_owned(), arguments, output: None, config, always: false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopping) = watch::channel(false);
        let mut running = std::pin::pin!(supervise::run(node, stopping));
        let ended = tokio::select! {
            ended = &mut running => ended,
            _ = terminated.recv() => { stop.send_replace(true); running.await }
            _ = interrupted.recv() => { stop.send_replace(true); running.await }
        };
        ended.map_err(|why| Failure::new(why).try_this("its last lines above say why it dies"))
    })
}

/// The settings of a file.
pub(super) fn settings(path: &Path) -> Result<BrokerConfig, Failure> {
    let start = Start { config: Some(path.to_owned()), ..Start::default() };
    let parsed = BrokerConfig::parse(pairs(&start)?);
    Ok(parsed.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?.0)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MADANG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Refused only if something in this process logs already.
    drop(subscriber.try_init());
}

/// The settings in the order in which they win: defaults, file, options, `--set`.
fn pairs(start: &Start) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs = vec![
        ("log.dirs".to_owned(), DEFAULT_DATA.to_owned()),
        ("listeners".to_owned(), format!("PLAINTEXT://{DEFAULT_LISTEN}")),
    ];
    if let Some(path) = &start.config {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            pairs
                .push(split(line).ok_or_else(|| {
                    Failure::new(format!("{}:{}: not KEY=VALUE: {line}", path.display(), number + 1))
                })?);
        }
    }
    if let Some(data) = &start.data {
        pairs.push(("log.dirs".to_owned(), data.display().to_string()));
    }
    if let Some(listen) = &start.listen {
        pairs.push(("listeners".to_owned(), format!("PLAINTEXT://{listen}")));
    }
    let quic = [
        ("madang.quic.listener", &start.listen_quic),
        ("madang.quic.certificate", &start.quic_certificate),
        ("madang.quic.key", &start.quic_key),
    ];
    pairs.extend(quic.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
    for setting in &start.settings {
        pairs.push(split(setting).ok_or_else(|| {
            Failure::new(format!("--set {setting}: not KEY=VALUE")).try_this("--set num.partitions=3")
        })?);
    }
    Ok(pairs)
}

fn split(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    Some((key.trim().to_owned(), value.trim().to_owned()))
}

async fn serve(config: BrokerConfig, began: Instant) -> Result<i32, Failure> {
    let data = config.log_dirs.clone();
    let mut server = Server::start(config).await.map_err(|why| {
        Failure::new(why).try_this("another --listen address or --data directory, or stop the process that uses it")
    })?;
    let took = began.elapsed();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    announce(&server, data, took).await;
    let code = tokio::select! {
        code = server.ended() => return Ok(code),
        _ = terminated.recv() => 0,
        _ = interrupted.recv() => 0,
    };
    server.stop().await;
    println!("stopped; everything is on disk");
    Ok(code)
}

fn signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    tokio::signal::unix::signal(kind).map_err(|error| Failure::new(format!("signals: {error}")))
}

async fn announce(server: &Server, data: Vec<String>, took: Duration) {
    println!("madang {} serves after {} ms", env!("CARGO_PKG_VERSION"), took.as_millis());
    for (_, address) in server.listeners() {
        println!("  Kafka listener  {address}");
    }
    if let Some(quic) = server.quic() {
        println!("  QUIC listener   {} (clients trust {})", quic.address, quic.trust.display());
    }
    if let Some(admin) = server.admin() {
        println!("  admin           http://{admin}");
    }
    // On another thread: this one accepts connections.
    let measured = tokio::task::spawn_blocking(move || {
        for directory in &data {
            let sync = server::sync_time(std::path::Path::new(directory)).map_or_else(
                |error| format!("cannot be synced: {error}"),
                |time| format!("one sync takes {:.2} ms here", time.as_secs_f64() * 1000.0),
            );
            println!("  data            {directory} ({sync})");
        }
    });
    if let Err(error) = measured.await {
        tracing::warn!(%error, "the time of a sync was not measured");
    }
    let address = server.listeners().first().map_or_else(String::new, |(_, address)| address.to_string());
    println!("Next, in another terminal:");
    println!("  echo hello | madang produce greetings --server {address}");
    println!("  madang consume greetings --from-beginning --max 1 --server {address}");
}
