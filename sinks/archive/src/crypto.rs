//! Signing requests to stores by OpenSSL, which TLS and librdkafka link already: the crate's own providers would bring a
//! second cryptographic library of many minutes to compile.

use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer as ObjectSigner, SigningAlgorithm,
};
use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

type Result<T> = object_store::Result<T>;

fn failed(error: ErrorStack) -> object_store::Error {
    object_store::Error::Generic { store: "openssl", source: Box::new(error) }
}

fn unknown(what: &str) -> object_store::Error {
    object_store::Error::NotSupported { source: format!("{what} isn't known here").into() }
}

/// OpenSSL, as the stores ask for it.
#[derive(Debug)]
pub(crate) struct OpenSsl;

impl CryptoProvider for OpenSsl {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        if algorithm != DigestAlgorithm::Sha256 {
            return Err(unknown("this digest"));
        }
        let hasher = Hasher::new(MessageDigest::sha256()).map_err(failed)?;
        Ok(Box::new(Digest { hasher, fault: None, done: Vec::new() }))
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        if algorithm != DigestAlgorithm::Sha256 {
            return Err(unknown("this digest"));
        }
        let key = PKey::hmac(secret).map_err(failed)?;
        Ok(Box::new(Hmac { key, data: Vec::new(), done: Vec::new() }))
    }

    fn sign(&self, algorithm: SigningAlgorithm, pem: &[u8]) -> Result<Box<dyn ObjectSigner>> {
        if algorithm != SigningAlgorithm::RS256 {
            return Err(unknown("this signature"));
        }
        Ok(Box::new(Rs256(PKey::private_key_from_pem(pem).map_err(failed)?)))
    }
}

struct Digest {
    hasher: Hasher,
    /// `update` has no way to say so.
    fault: Option<ErrorStack>,
    done: Vec<u8>,
}

impl DigestContext for Digest {
    fn update(&mut self, data: &[u8]) {
        if let Err(error) = self.hasher.update(data) {
            self.fault.get_or_insert(error);
        }
    }

    fn finish(&mut self) -> Result<&[u8]> {
        if let Some(error) = self.fault.take() {
            return Err(failed(error));
        }
        self.done = self.hasher.finish().map_err(failed)?.to_vec();
        Ok(&self.done)
    }
}

/// Requests sign texts of a few hundred bytes, which are gathered.
struct Hmac {
    key: PKey<Private>,
    data: Vec<u8>,
    done: Vec<u8>,
}

impl HmacContext for Hmac {
    fn update(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).map_err(failed)?;
        self.done = signer.sign_oneshot_to_vec(&self.data).map_err(failed)?;
        Ok(&self.done)
    }
}

struct Rs256(PKey<Private>);

impl ObjectSigner for Rs256 {
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0).map_err(failed)?;
        signer.sign_oneshot_to_vec(text).map_err(failed)
    }
}

/// Hexadecimal digits of the SHA-256 of `bytes`, as `sha256sum` prints them.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    shown(openssl::sha::sha256(bytes))
}

/// The same of bytes that come piece by piece.
pub(crate) struct Sha256(openssl::sha::Sha256);

impl Sha256 {
    pub(crate) fn new() -> Sha256 {
        Sha256(openssl::sha::Sha256::new())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        shown(self.0.finish())
    }
}

fn shown(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_and_signatures_are_those_of_the_standards() {
        // FIPS 180-4's "abc", and test case 2 of RFC 4231.
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut pieces = Sha256::new();
        [b"a", b"b", b"c"].iter().for_each(|piece| pieces.update(*piece));
        assert_eq!(pieces.finish(), sha256(b"abc"));
        let mut digest = OpenSsl.digest(DigestAlgorithm::Sha256).expect("a digest");
        digest.update(b"a");
        digest.update(b"bc");
        assert_eq!(hex(digest.finish().expect("done")), sha256(b"abc"));
        let mut hmac = OpenSsl.hmac(DigestAlgorithm::Sha256, b"Jefe").expect("a hmac");
        hmac.update(b"what do ya want ");
        hmac.update(b"for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(hmac.finish().expect("done")), expected);
    }
}
