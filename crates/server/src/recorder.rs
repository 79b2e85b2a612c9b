//! The flight recorder: a member's inputs, on their way to a file.
//!
//! A recording is a line of JSON with the member's configuration, then the node's tape as it came. A thread of its own
//! writes, so that the member never waits; where the thread cannot keep up, the recording ends rather than have a hole.
//! Every turn's piece of tape is handed over at its end, so a member that is killed loses what the thread has not yet
//! written, at most [`WAITING_MAX`] turns and most often none. Nothing is synced: a machine that loses power loses more.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// Pieces of tape that wait to be written, at most.
const WAITING_MAX: usize = 4096;
/// What waits is gathered up to this size before it is written.
const GATHERED_BYTES: usize = 64 << 10;

/// A recording in progress.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    pieces: Option<mpsc::SyncSender<Vec<u8>>>,
    writer: Option<thread::JoinHandle<io::Result<()>>>,
    written: u64,
    bytes_max: u64,
}

impl Recorder {
    /// Begins a recording with `header`, one line of JSON.
    pub(crate) fn start(path: &Path, header: &str, bytes_max: u64) -> io::Result<Recorder> {
        let mut file = BufWriter::with_capacity(GATHERED_BYTES, File::create(path)?);
        writeln!(file, "{header}")?;
        file.flush()?;
        let (pieces, incoming) = mpsc::sync_channel::<Vec<u8>>(WAITING_MAX);
        let write = move || {
            while let Ok(piece) = incoming.recv() {
                file.write_all(&piece)?;
                for piece in incoming.try_iter() {
                    file.write_all(&piece)?;
                }
                file.flush()?;
            }
            Ok(())
        };
        let writer = thread::Builder::new().name("synod-recorder".to_owned()).spawn(write)?;
        Ok(Recorder {
            path: path.to_owned(),
            pieces: Some(pieces),
            writer: Some(writer),
            written: header.len() as u64 + 1,
            bytes_max,
        })
    }

    /// Takes a piece of tape, whole. Returns a line for the log when the recording ends here.
    pub(crate) fn record(&mut self, tape: &mut Vec<u8>) -> Option<String> {
        let pieces = self.pieces.as_ref()?;
        if tape.is_empty() {
            return None;
        }
        if self.written + tape.len() as u64 > self.bytes_max {
            let line = format!(
                "the flight recorder stops: {} has reached its limit of {} bytes",
                self.path.display(),
                self.bytes_max
            );
            self.pieces = None;
            return Some(line);
        }
        self.written += tape.len() as u64;
        match pieces.try_send(std::mem::take(tape)) {
            Ok(()) => None,
            Err(error) => {
                let why = match error {
                    mpsc::TrySendError::Full(_) => "its file takes too long to write",
                    mpsc::TrySendError::Disconnected(_) => "its file cannot be written",
                };
                self.pieces = None;
                Some(format!("the flight recorder stops: {why} ({})", self.path.display()))
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_its_header_and_the_tape_up_to_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tape");
        let mut recorder = Recorder::start(&path, "{}", 10).expect("starts");
        assert_eq!(recorder.record(&mut b"abcd".to_vec()), None);
        assert_eq!(recorder.record(&mut b"efg".to_vec()), None);
        let line = recorder.record(&mut b"h".to_vec()).expect("the limit is reached");
        assert!(line.contains("has reached its limit of 10 bytes"), "{line}");
        assert_eq!(recorder.record(&mut b"i".to_vec()), None, "it has said so once");
        drop(recorder);
        assert_eq!(std::fs::read(&path).expect("reads"), b"{}\nabcdefg");
    }
}
