//! The floor: the barest program that does with the same bytes what a broker cannot do without. A process of its own, so that its time can be told apart.
//! Invariant: one thread for each connection, no allocation and no system call in the loop beside those that the bytes need.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use clap::Args;
use madang_load_tests::bench::frames;
use rustix::net::{SendFlags, send};

/// What the process is told; frames and answers have one length each.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Bytes of a request.
    #[arg(long)]
    frame: usize,
    /// Bytes of an answer, or of its head where a file is sent.
    #[arg(long)]
    answer: usize,
    /// Where what comes is written.
    #[arg(long)]
    folder: PathBuf,
    /// The file that is sent; without it what comes is written.
    #[arg(long)]
    file: Option<PathBuf>,
    /// So many bytes of it for each request.
    #[arg(long, default_value_t = 0)]
    piece: usize,
    /// The topic that a head names.
    #[arg(long, default_value = "")]
    topic: String,
}

/// Serves until its standard input ends, which it does with whoever started it. Says its port on standard output.
///
/// # Errors
/// A text for a person.
pub(crate) fn serve(args: &ServerArgs) -> Result<bool, String> {
    let failed = |error: io::Error| format!("the floor: {error}");
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    println!("{}", listener.local_addr().map_err(failed)?.port());
    let shared = args.clone();
    std::thread::spawn(move || accept(&listener, &shared));
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(failed)?;
    Ok(true)
}

fn accept(listener: &TcpListener, args: &ServerArgs) {
    for (number, stream) in listener.incoming().flatten().enumerate() {
        let args = args.clone();
        std::thread::spawn(move || {
            let path = args.folder.join(format!("floor-{number}"));
            let outcome = match &args.file {
                Some(file) => send_file(&stream, file, &args),
                None => take(stream, &path, &args),
            };
            // What was written is of no use any more; whoever asked has gone.
            drop(std::fs::remove_file(path));
            if let Err(error) = outcome.as_ref()
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                eprintln!("the floor: {error}");
            }
        });
    }
}

/// Receives a frame, takes its CRC-32C, writes it, answers.
fn take(mut stream: TcpStream, path: &Path, args: &ServerArgs) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut file = File::create(path)?;
    let (mut frame, mut answer) = (vec![0; args.frame], vec![0; args.answer]);
    answer[..4].copy_from_slice(&((args.answer - 4) as i32).to_be_bytes());
    loop {
        stream.read_exact(&mut frame)?;
        std::hint::black_box(crc32c::crc32c(&frame));
        file.write_all(&frame)?;
        stream.write_all(&answer)?;
    }
}

/// Receives a request, sends a head and the next piece of the file; begins again at its end.
fn send_file(mut stream: &TcpStream, path: &Path, args: &ServerArgs) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut frame, head) = (vec![0; args.frame], frames::fetch_head(&args.topic, args.piece));
    let mut at = 0;
    loop {
        stream.read_exact(&mut frame)?;
        if at + args.piece as u64 > length {
            at = 0;
        }
        // A head is some sixty bytes, which always fit.
        send(stream, &head, SendFlags::MORE)?;
        let end = at + args.piece as u64;
        while at < end {
            let left = (end - at) as usize;
            if rustix::fs::sendfile(stream, &file, Some(&mut at), left)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
