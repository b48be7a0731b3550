//! The input of `flotilla produce`: where it comes from, and how it becomes records.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use flotilla_client::{Error, Producer, Record};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::ProduceArgs;
use crate::cli::exit::CliError;

/// Bytes read from the input at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait for the producer.
const CHUNKS_MAX: usize = 4;

/// Where lines come from.
pub struct Input {
    /// In messages.
    name: String,
    from: Box<dyn Read + Send>,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
}

impl Input {
    /// A file, or stdin.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(file: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = file else {
            return Ok(Self { name: "stdin".to_owned(), from: Box::new(io::stdin()), bytes: None });
        };
        let name = path.display().to_string();
        let file = File::open(path).map_err(CliError::io(name.clone()))?;
        let bytes = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
        Ok(Self { name, from: Box::new(file), bytes })
    }
}

/// Cuts the input into records and hands them to the producer.
pub struct Lines<'a> {
    producer: &'a Producer,
    key_separator: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
    partition: Option<u32>,
    /// Lines that the producer took, for whoever looks at it meanwhile.
    taken: &'a Cell<u64>,
    /// Whether it refused the line behind them.
    pub refused: bool,
}

impl<'a> Lines<'a> {
    /// Nothing is read yet.
    pub fn new(args: &'a ProduceArgs, producer: &'a Producer, taken: &'a Cell<u64>) -> Self {
        Self {
            producer,
            key_separator: args.key_separator.as_deref().map(str::as_bytes),
            headers: args.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect(),
            partition: args.partition,
            taken,
            refused: false,
        }
    }

    /// Hands every line over.
    ///
    /// # Errors
    /// If the input cannot be read, or the producer does not take a line.
    pub async fn send_all(&mut self, input: Input, progress: &ProgressBar) -> Result<(), CliError> {
        let Input { name, from, .. } = input;
        let mut chunks = read_in_thread(from);
        let mut line = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(CliError::io(name.clone()))?;
            let mut rest = chunk.as_slice();
            // `read_until` on a slice does not fail.
            while rest.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                if line.last() == Some(&b'\n') {
                    line.pop();
                    self.send(&line, &name).await?;
                    line.clear();
                }
            }
            progress.inc(chunk.len() as u64);
            progress.set_message(format!("{} records", self.taken.get()));
            // A file that is always ready, and a node that is fast enough, would never let Ctrl-C in.
            tokio::task::yield_now().await;
        }
        if line.is_empty() { Ok(()) } else { self.send(&line, &name).await }
    }

    async fn send(&mut self, line: &[u8], input: &str) -> Result<(), CliError> {
        let (key, value) = match self.key_separator.and_then(|separator| split_once(line, separator)) {
            Some((key, value)) => (Some(key), value),
            None => (None, line),
        };
        let record = Record { partition: self.partition, key, value: Some(value), headers: &self.headers, timestamp_ms: None };
        match self.producer.enqueue(record).await {
            Ok(()) => self.taken.set(self.taken.get() + 1),
            // The line is not at fault.
            Err(error @ (Error::Stopped { .. } | Error::Closed)) => return Err(error.into()),
            Err(error) => {
                self.refused = true;
                return Err(CliError::Line { input: input.to_owned(), line: self.taken.get() + 1, error: Box::new(error) });
            }
        }
        Ok(())
    }
}

fn split_once<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((line.get(..at)?, line.get(at + separator.len()..)?))
}

/// Reads in a thread of its own: a read from a terminal or a pipe cannot be taken back, and must not hold up the end of
/// the process.
fn read_in_thread(mut input: Box<dyn Read + Send>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    std::thread::spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = match input.read(&mut chunk) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|bytes| {
                    chunk.truncate(bytes);
                    chunk
                }),
            };
            let failed = read.is_err();
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_first_separator_ends_the_key() {
        assert_eq!(split_once(b"key: value: more", b": "), Some((&b"key"[..], &b"value: more"[..])));
        assert_eq!(split_once(b"=v", b"="), Some((&b""[..], &b"v"[..])));
        assert_eq!(split_once(b"none", b"="), None);
        assert_eq!(split_once(b"", b"="), None);
    }

    #[tokio::test]
    async fn the_input_arrives_whole() {
        let input: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let mut chunks = read_in_thread(Box::new(io::Cursor::new(input.clone())));
        let mut read = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            read.extend(chunk.unwrap());
        }
        assert_eq!(read, input);
    }
}
