//! Bytes held until they are complete: in memory up to a limit, in an unnamed file above it.
//!
//! A request's body is read to its end before its statement starts, so that an upload that breaks
//! off stores nothing; a result for `wait_end_of_query=1` is held the same way.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

/// Bytes being collected.
pub(crate) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
    memory_bytes_at_most: usize,
}

/// Bytes that are complete, to be read once from their beginning.
pub(crate) struct Spooled {
    source: Source,
    length: u64,
}

enum Source {
    Memory(Cursor<Vec<u8>>),
    File(File),
}

impl Spool {
    /// An empty spool that keeps up to `memory_bytes_at_most` in memory.
    pub(crate) fn new(memory_bytes_at_most: usize) -> Spool {
        Spool { memory: Vec::new(), file: None, length: 0, memory_bytes_at_most }
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Adds `bytes`, to the file once memory's limit is passed.
    ///
    /// # Errors
    /// Making or writing the file, in the system's folder for temporary files.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(bytes);
        }
        if self.memory.len() + bytes.len() <= self.memory_bytes_at_most {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let mut file = tempfile::tempfile()?;
        file.write_all(&std::mem::take(&mut self.memory))?;
        file.write_all(bytes)?;
        self.file = Some(file);
        Ok(())
    }

    /// The bytes, from their beginning.
    ///
    /// # Errors
    /// Seeking in the file.
    pub(crate) fn complete(self) -> io::Result<Spooled> {
        let source = match self.file {
            None => Source::Memory(Cursor::new(self.memory)),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Source::File(file)
            }
        };
        Ok(Spooled { source, length: self.length })
    }
}

impl Spooled {
    /// How many bytes there are in all.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Read for Spooled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Memory(cursor) => cursor.read(buffer),
            Source::File(file) => file.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_file_read_the_same() {
        for limit in [0, 10, 1000] {
            let mut spool = Spool::new(limit);
            for piece in [b"one, ".as_slice(), b"two, ", b"three"] {
                spool.write(piece).expect("written");
            }
            assert_eq!((spool.len(), spool.file.is_some()), (15, limit < 15));
            let mut text = String::new();
            spool.complete().expect("complete").read_to_string(&mut text).expect("read");
            assert_eq!(text, "one, two, three");
        }
    }
}
