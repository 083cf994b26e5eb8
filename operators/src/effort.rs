//! What each operator costs: CPU time by operator's name, summed over workers.
//!
//! Operators have no clock; whoever runs them gives one that reads a thread's CPU time, or none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Nanoseconds of CPU by name.
pub struct Efforts {
    thread_cpu_ns: fn() -> u64,
    accounts: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Default for Efforts {
    /// Measures nothing.
    fn default() -> Efforts {
        Efforts::new(|| 0)
    }
}

impl Efforts {
    /// `thread_cpu_ns` reads the CPU time that the calling thread has used, in nanoseconds.
    pub fn new(thread_cpu_ns: fn() -> u64) -> Efforts {
        Efforts { thread_cpu_ns, accounts: Mutex::default() }
    }

    /// The account of `name`, the same for every worker.
    pub fn of(&self, name: &str) -> Effort {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(name.to_owned()).or_default().clone();
        Effort { thread_cpu_ns: self.thread_cpu_ns, account }
    }

    /// Nanoseconds so far, in the order of names.
    pub fn all(&self) -> Vec<(String, u64)> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.iter().map(|(name, account)| (name.clone(), account.load(Ordering::Relaxed))).collect()
    }
}

/// One operator's account.
#[derive(Clone)]
pub struct Effort {
    thread_cpu_ns: fn() -> u64,
    account: Arc<AtomicU64>,
}

impl Effort {
    /// Does `work` on this account.
    pub fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = (self.thread_cpu_ns)();
        let done = work();
        self.account.fetch_add((self.thread_cpu_ns)().saturating_sub(before), Ordering::Relaxed);
        done
    }
}
