//! Sessions that clients name by `session_id`: connections that outlive a request.
//!
//! One request at a time may use a session; another gets 373 SESSION_IS_LOCKED at once. A session
//! that nobody has used for its timeout is closed when the next request looks for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use crate::connection::Connection;
use crate::exception::Exception;

/// Sessions kept open at once; more are refused.
const SESSIONS_AT_MOST: usize = 1000;
/// A server's `default_session_timeout` and `max_session_timeout`.
const TIMEOUT_SECONDS: u64 = 60;
const TIMEOUT_SECONDS_AT_MOST: u64 = 3600;

/// What a request says about the session that it wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) id: String,
    /// `session_timeout` as sent.
    pub(crate) timeout: Option<String>,
    /// `session_check=1`: only a session that exists already.
    pub(crate) must_exist: bool,
    /// `close_session=1`: close it after this request.
    pub(crate) close: bool,
}

struct Session {
    connection: Arc<tokio::sync::Mutex<Connection>>,
    expires_at: Instant,
}

/// All open sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    by_id: Mutex<HashMap<String, Session>>,
}

impl Sessions {
    /// Locks the session that is wanted, opening it with `connect` if there is none.
    ///
    /// # Errors
    /// 372 (no such session), 373 (in use), 374 (timeout out of range), 202 (too many), or what
    /// `connect` says.
    pub(crate) fn lock(
        &self,
        wanted: &Wanted,
        connect: impl FnOnce() -> Result<Connection, Exception>,
    ) -> Result<OwnedMutexGuard<Connection>, Exception> {
        let timeout = timeout_of(wanted)?;
        let now = Instant::now();
        let mut sessions = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.expires_at > now || session.connection.try_lock().is_err());
        let is_full = sessions.len() >= SESSIONS_AT_MOST;
        let connection = match sessions.get_mut(&wanted.id) {
            Some(session) => {
                session.expires_at = now + timeout;
                session.connection.clone()
            }
            None if wanted.must_exist => {
                return Err(Exception::new(372, "SESSION_NOT_FOUND", format_args!("session {} not found", wanted.id)));
            }
            None if is_full => {
                return Err(Exception::new(
                    202,
                    "TOO_MANY_SIMULTANEOUS_QUERIES",
                    format_args!("{SESSIONS_AT_MOST} sessions are open already"),
                ));
            }
            None => {
                let connection = Arc::new(tokio::sync::Mutex::new(connect()?));
                sessions
                    .insert(wanted.id.clone(), Session { connection: connection.clone(), expires_at: now + timeout });
                connection
            }
        };
        connection.try_lock_owned().map_err(|_| {
            Exception::new(
                373,
                "SESSION_IS_LOCKED",
                format_args!("session {} is locked by a concurrent client", wanted.id),
            )
        })
    }

    /// Forgets a session; its connection closes with its last user.
    pub(crate) fn close(&self, id: &str) {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets all sessions.
    pub(crate) fn clear(&self) {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn timeout_of(wanted: &Wanted) -> Result<Duration, Exception> {
    let Some(text) = &wanted.timeout else { return Ok(Duration::from_secs(TIMEOUT_SECONDS)) };
    match text.parse() {
        Ok(seconds) if seconds <= TIMEOUT_SECONDS_AT_MOST => Ok(Duration::from_secs(seconds)),
        _ => Err(Exception::new(
            374,
            "INVALID_SESSION_TIMEOUT",
            format_args!("session_timeout {text} is no number of seconds up to {TIMEOUT_SECONDS_AT_MOST}"),
        )),
    }
}
