//! Where a scenario's state lies: in memory where the system has a place for that, since every commit is synced.
//!
//! Whoever sets `TMPDIR` has said where. A place in memory must have room: containers often give it 64 MiB, and state that
//! fills it stops the engine in the middle of a scenario.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// Bytes that have to be free in memory.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// A folder of its own, which goes when it is dropped.
///
/// # Errors
/// When there is no place where a folder can be made.
pub(super) fn new() -> std::io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("weir-scenario-");
    let free = free_bytes(Path::new(IN_MEMORY));
    match place(std::env::var_os("TMPDIR").as_deref(), free) {
        Some(folder) => builder.tempdir_in(folder).or_else(|_| builder.tempdir()),
        None => builder.tempdir(),
    }
}

/// The place in memory, if nobody named another and so many free bytes are enough.
fn place(named: Option<&OsStr>, free_bytes: Option<u64>) -> Option<PathBuf> {
    let is_named = named.is_some_and(|folder| !folder.is_empty());
    let has_room = free_bytes.is_some_and(|free| free >= FREE_BYTES_MIN);
    (!is_named && has_room).then(|| PathBuf::from(IN_MEMORY))
}

/// Bytes that this user may still write below `folder`; `None` where the system doesn't tell.
fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut told = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte and the system fills the struct, which is read only if it says so.
    let told = unsafe {
        if libc::statvfs(path.as_ptr(), told.as_mut_ptr()) != 0 {
            return None;
        }
        told.assume_init()
    };
    told.f_bavail.checked_mul(told.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lies_in_memory_only_where_there_is_room_and_nobody_named_another_place() {
        let enough = Some(FREE_BYTES_MIN);
        assert_eq!(place(None, enough), Some(PathBuf::from(IN_MEMORY)));
        assert_eq!(place(Some(OsStr::new("")), enough), Some(PathBuf::from(IN_MEMORY)));
        assert_eq!(place(Some(OsStr::new("/tmp")), enough), None);
        assert_eq!(place(None, Some(FREE_BYTES_MIN - 1)), None);
        assert_eq!(place(None, None), None);
        assert!(free_bytes(Path::new("/")).is_some());
        assert_eq!(free_bytes(Path::new("/no/such/place")), None);
    }
}
