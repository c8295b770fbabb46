//! A broker as a real process, for the tests: started from the built binary, killed by its process id.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long an orderly end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How a broker is started.
#[derive(Debug)]
pub(crate) struct Launch {
    command: Command,
    log: Option<PathBuf>,
}

/// The built binary, or the one that MADANG_TEST_BINARY names.
pub(crate) fn binary() -> String {
    std::env::var("MADANG_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_madang").to_owned())
}

impl Launch {
    /// `madang start` of the built binary, or of the one that MADANG_TEST_BINARY names.
    pub(crate) fn new(data: &Path) -> Self {
        let mut command = Command::new(binary());
        command.arg("start").arg("--data").arg(data).args(["--set", "madang.admin.listener=127.0.0.1:0"]);
        Self { command, log: None }
    }

    /// As [`Launch::new`], in a process that a shell allows so many open files.
    pub(crate) fn with_open_files(data: &Path, files: u32) -> Self {
        let inner = Self::new(data).command;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -Sn {files} && exec \"$0\" \"$@\"")]);
        command.arg(inner.get_program()).args(inner.get_args());
        Self { command, log: None }
    }

    /// Sets one key.
    pub(crate) fn set(mut self, setting: &str) -> Self {
        self.command.args(["--set", setting]);
        self
    }

    /// Sets one variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Appends what it logs to a file instead of the test's own standard error.
    pub(crate) fn log_to(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it says that it listens.
    pub(crate) fn start(self, listen: &str) -> Broker {
        self.try_start(listen).expect("the broker says where it listens")
    }

    /// Starts it; nothing if it ends before it listens.
    pub(crate) fn try_start(mut self, listen: &str) -> Option<Broker> {
        let log = self.log.map_or_else(Stdio::inherit, |path| {
            Stdio::from(File::options().create(true).append(true).open(path).expect("the log can be written"))
        });
        self.command.args(["--listen", listen]).stdout(Stdio::piped()).stderr(log);
        let mut child = self.command.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The admin listener comes after all the others.
        let (mut listeners, mut quic, mut admin) = (Vec::new(), None, None);
        while listeners.is_empty() || admin.is_none() {
            let Some(Ok(line)) = lines.next() else {
                child.wait().expect("the broker can be waited for");
                return None;
            };
            listeners.extend(line.trim().strip_prefix("Kafka listener").map(|rest| rest.trim().to_owned()));
            let shown = line.trim().strip_prefix("QUIC listener").and_then(|rest| rest.split_once(" (clients trust "));
            quic = quic.or_else(|| {
                shown.map(|(at, trust)| (at.trim().to_owned(), PathBuf::from(trust.trim_end_matches(')'))))
            });
            admin = admin.or_else(|| line.trim().strip_prefix("admin").map(|rest| rest.trim().to_owned()));
        }
        // What it prints later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let address = listeners[0].clone();
        Some(Broker { child, address, listeners, quic, admin: admin.unwrap_or_default() })
    }
}

/// A running `madang start`. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// Host and port of the first Kafka listener.
    pub(crate) address: String,
    /// Host and port of every Kafka listener.
    pub(crate) listeners: Vec<String>,
    /// Host and port of the listener over QUIC, and the certificate to trust.
    pub(crate) quic: Option<(String, PathBuf)>,
    /// URL of the admin listener, without a slash at its end.
    pub(crate) admin: String,
}

impl Broker {
    /// Starts a broker on ports the system chooses and waits until it says that it listens.
    pub(crate) fn start(data: &Path, settings: &[&str]) -> Self {
        Self::start_on(data, "127.0.0.1:0", settings)
    }

    /// Starts a broker on a given address.
    pub(crate) fn start_on(data: &Path, listen: &str, settings: &[&str]) -> Self {
        settings.iter().fold(Launch::new(data), |launch, setting| launch.set(setting)).start(listen)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().expect("the broker can be waited for").is_none()
    }

    /// The exit code, once the process has ended by itself within `patience`.
    pub(crate) fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the broker can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the killed broker is reaped");
    }

    /// Asks for an orderly end and returns whether it came with exit code 0 within 30 s.
    pub(crate) fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the broker can be waited for") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// The body of a page of the admin listener.
    pub(crate) fn page(&self, path: &str) -> String {
        let host = self.admin.strip_prefix("http://").unwrap_or(&self.admin);
        let mut stream = TcpStream::connect(host).expect("the admin listener accepts");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the admin listener reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the admin listener answers");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the broker is running");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
