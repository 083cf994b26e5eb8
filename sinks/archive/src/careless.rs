//! A store that writes over what is there whatever it is told, as some that only look like S3 do; for tests.

use std::fmt::{Display, Formatter};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::{Archive, Error, Settings};

#[derive(Debug, Default)]
struct Careless(InMemory);

impl Display for Careless {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("careless")
    }
}

/// What the trait's calls give; written out, as the trait's own macro is a dependency that nothing else needs.
type Call<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

impl ObjectStore for Careless {
    fn put_opts<'a, 'b, 'c>(&'a self, at: &'b Path, payload: PutPayload, _: PutOptions) -> Call<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.put_opts(at, payload, PutOptions::default())
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        at: &'b Path,
        options: PutMultipartOptions,
    ) -> Call<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.put_multipart_opts(at, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, at: &'b Path, options: GetOptions) -> Call<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.get_opts(at, options)
    }

    fn delete_stream(&self, all: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Call<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(&'a self, from: &'b Path, to: &'d Path, options: CopyOptions) -> Call<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.0.copy_opts(from, to, options)
    }
}

#[test]
fn a_store_that_writes_over_what_is_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, options, pipeline) = (folder.path().display().to_string(), Default::default(), "shop".to_owned());
    let archive = Archive::open(&Settings { url, options, pipeline, makes_folder: true }).expect("an archive");
    let probe = |inner: Arc<dyn ObjectStore>| archive.over(inner).probe();
    for _ in 0..2 {
        let told = probe(Arc::new(Careless::default()));
        assert!(matches!(&told, Err(Error::Settings(told)) if told.contains("conditional writes")), "{told:?}");
    }
    let kept = Arc::new(InMemory::new());
    assert!(probe(kept.clone()).is_ok() && probe(kept).is_ok());
}
