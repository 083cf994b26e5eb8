//! Ends with another process, however that one ends.
//!
//! A pidfd is watched, not `PR_SET_PDEATHSIG`: that signal comes when the parent's *thread* ends,
//! and a child started from a test's or a runtime's thread would be ended much too early.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

/// A process that is watched; `None` inside when it had ended already.
pub(crate) struct Parent(Option<AsyncFd<OwnedFd>>);

impl Parent {
    /// Starts to watch process `id`.
    ///
    /// # Errors
    /// The kernel's refusal; a process that has ended already is none.
    pub(crate) fn watch(id: u32) -> io::Result<Parent> {
        let id = libc::pid_t::try_from(id).map_err(io::Error::other)?;
        // SAFETY: plain system call with two numbers.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        if descriptor < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(Parent(None)) } else { Err(error) };
        }
        let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
        // SAFETY: the descriptor was just opened and has no other owner.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: `AsyncFd` owns the descriptor, so it stays open and the same until deregistered.
        let descriptor = unsafe { AsyncFd::register(descriptor) }?;
        Ok(Parent(Some(descriptor)))
    }

    /// Ready when the process has ended.
    pub(crate) async fn ended(self) {
        if let Parent(Some(descriptor)) = self {
            // An error here means that the process can't be watched any more: treated as its end.
            let _ = descriptor.readable().await;
        }
    }
}
