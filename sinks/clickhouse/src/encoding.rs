//! Compression on the way in (`Content-Encoding`, `decompress=1`) and out (`Accept-Encoding`,
//! `compress=1`), always as streams.

use std::io::{self, Read, Write};

use crate::exception::Exception;
use crate::framing::{self, FramedReader};

/// The data of a body that came with `encoding` and, inside it, ClickHouse's framing if `framed`.
///
/// # Errors
/// Code 48 for an encoding that isn't known.
pub(crate) fn decoded(
    body: impl Read + Send + 'static,
    encoding: &str,
    framed: bool,
) -> Result<Box<dyn Read + Send>, Exception> {
    let wrong = |error: io::Error| Exception::from_read(error);
    let plain: Box<dyn Read + Send> = match encoding {
        "" | "identity" => Box::new(body),
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(body)),
        "deflate" => Box::new(flate2::read::ZlibDecoder::new(body)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(body).map_err(wrong)?),
        "lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
        other => {
            return Err(Exception::new(
                48,
                "NOT_IMPLEMENTED",
                format_args!("unknown compression method {other} of the request; use gzip, deflate, zstd or lz4"),
            ));
        }
    };
    Ok(if framed { Box::new(FramedReader::new(plain)) } else { plain })
}

/// The compression of a response; also makes it.
pub(crate) enum Encoder {
    Plain,
    Framed,
    Lz4(lz4_flex::frame::FrameEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// ClickHouse's framing when `framed`, else the first of lz4, zstd, gzip that `accept` names.
    ///
    /// # Errors
    /// Setting up the compressor.
    pub(crate) fn new(framed: bool, accept: &str) -> io::Result<Encoder> {
        let accepts = |method: &str| accept.split(',').any(|one| one.split(';').next().unwrap_or("").trim() == method);
        Ok(if framed {
            Encoder::Framed
        } else if accepts("lz4") {
            Encoder::Lz4(lz4_flex::frame::FrameEncoder::new(Vec::new()))
        } else if accepts("zstd") {
            Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?)
        } else if accepts("gzip") {
            Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()))
        } else {
            Encoder::Plain
        })
    }

    /// The `Content-Encoding` that names it.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Encoder::Plain | Encoder::Framed => None,
            Encoder::Lz4(_) => Some("lz4"),
            Encoder::Zstd(_) => Some("zstd"),
            Encoder::Gzip(_) => Some("gzip"),
        }
    }

    /// True when bytes leave as they came.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Encoder::Plain)
    }

    /// Compresses `data`; what comes out may be empty while the compressor gathers. With `flush`,
    /// everything so far comes out.
    ///
    /// # Errors
    /// The compressor's.
    pub(crate) fn encode(&mut self, data: &[u8], flush: bool) -> io::Result<Vec<u8>> {
        fn through<W: Write>(writer: &mut W, data: &[u8], flush: bool) -> io::Result<()> {
            writer.write_all(data)?;
            if flush { writer.flush() } else { Ok(()) }
        }
        match self {
            Encoder::Plain => Ok(data.to_vec()),
            Encoder::Framed => framing::pack(data),
            Encoder::Lz4(encoder) => {
                through(encoder, data, flush)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Encoder::Zstd(encoder) => {
                through(encoder, data, flush)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Encoder::Gzip(encoder) => {
                through(encoder, data, flush)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// The end of the compressed stream.
    ///
    /// # Errors
    /// The compressor's.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Plain | Encoder::Framed => Ok(Vec::new()),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Gzip(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_in_pieces_is_decoded() {
        for (framed, accept) in
            [(false, ""), (true, ""), (false, "br, lz4"), (false, "zstd;q=1"), (false, "deflate, gzip")]
        {
            let mut encoder = Encoder::new(framed, accept).expect("an encoder");
            let name = encoder.name().unwrap_or("");
            let mut bytes = encoder.encode(&[7; 100_000], false).expect("encoded");
            bytes.extend(encoder.encode(b"the end", true).expect("encoded"));
            bytes.extend(encoder.finish().expect("finished"));
            let mut data = Vec::new();
            decoded(io::Cursor::new(bytes), name, framed).expect("a decoder").read_to_end(&mut data).expect("decoded");
            assert_eq!((data.len(), &data[100_000..]), (100_007, b"the end".as_slice()), "{accept}");
        }
    }

    #[test]
    fn unknown_encodings_are_refused() {
        assert_eq!(decoded(io::empty(), "br", false).err().map(|e| e.code()), Some(48));
    }
}
