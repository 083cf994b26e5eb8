//! Cutting an answer into lines while it comes.

/// Bytes that came and aren't handed on.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    read: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    /// Up to where there is known to be no end of it.
    looked: usize,
}

impl Splitter {
    /// Takes more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.read.drain(..self.at);
        self.looked = self.looked.saturating_sub(self.at);
        self.at = 0;
        self.read.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let from = self.looked.max(self.at);
        let Some(length) = self.read.get(from..)?.iter().position(|byte| *byte == b'\n') else {
            self.looked = self.read.len();
            return None;
        };
        let line = self.read.get(self.at..from + length)?.to_vec();
        self.at = from + length + 1;
        Some(line)
    }

    /// What is left behind the last whole line, if anything is.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        self.push(&[]);
        self.looked = 0;
        let rest = std::mem::take(&mut self.read);
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_be_cut_anywhere() {
        let text = b"one\n\nthree\nfour";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut splitter = Splitter::default();
                let mut lines = Vec::new();
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    splitter.push(piece);
                    lines.extend(std::iter::from_fn(|| splitter.next()));
                }
                lines.extend(splitter.rest());
                assert_eq!(lines, [&b"one"[..], b"", b"three", b"four"], "{first} {second}");
                assert_eq!((splitter.next(), splitter.rest()), (None, None));
            }
        }
    }
}
