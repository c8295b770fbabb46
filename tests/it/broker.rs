//! A broker as a real process, for the tests: started from the built binary, killed by its process id.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running `madang start`. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// Host and port of the Kafka listener.
    pub(crate) address: String,
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_madang"));
        command.arg("start").arg("--data").arg(data).args(["--listen", listen]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut address, mut admin) = (None, None);
        while address.is_none() || admin.is_none() {
            let line = lines.next().expect("the broker says where it listens").expect("its output is text");
            address = address.or_else(|| line.trim().strip_prefix("Kafka listener").map(|rest| rest.trim().to_owned()));
            admin = admin.or_else(|| line.trim().strip_prefix("admin").map(|rest| rest.trim().to_owned()));
        }
        // What it prints later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.unwrap_or_default(), admin: admin.unwrap_or_default() }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the killed broker is reaped");
    }

    /// Asks for an orderly end and returns whether it came with exit code 0 within 30 s.
    pub(crate) fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the broker can be waited for") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
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
