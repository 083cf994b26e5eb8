//! Free ports on loopback, remembered by the folder they were chosen for.

use std::net::TcpListener;
use std::path::Path;

use super::{PartsError, file};

/// Below the range that the system takes for outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: usize = 1_000;

/// The parts' ports. Kafka and the registry use the next higher one, too (controller, management).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of Kafka's listener.
    pub kafka: u16,
    /// Of the registry.
    pub registry: u16,
    /// Of the ClickHouse front.
    pub clickhouse: u16,
}

impl Ports {
    /// Those that `folder` remembers if they are free, else new ones, which it remembers from then on.
    ///
    /// # Errors
    /// No free ports, or the folder can't be written.
    pub fn of_folder(folder: &Path) -> Result<Ports, PartsError> {
        let path = folder.join("ports");
        if let Some(ports) = std::fs::read_to_string(&path).ok().and_then(|text| parse(&text))
            && [ports.kafka, ports.registry, ports.clickhouse].into_iter().all(is_free)
        {
            return Ok(ports);
        }
        let ports = free()?;
        std::fs::write(&path, format!("{} {} {}\n", ports.kafka, ports.registry, ports.clickhouse))
            .map_err(file(&path))?;
        Ok(ports)
    }
}

fn parse(text: &str) -> Option<Ports> {
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    Some(Ports { kafka: numbers.next()??, registry: numbers.next()??, clickhouse: numbers.next()?? })
}

fn is_free(port: u16) -> bool {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    bind(port) && port.checked_add(1).is_some_and(bind)
}

fn free() -> Result<Ports, PartsError> {
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let port = fastrand::u16(RANGE.start / 2..RANGE.end / 2) * 2;
        if !found.contains(&port) && is_free(port) {
            found.push(port);
        }
        if let [kafka, registry, clickhouse] = found[..] {
            return Ok(Ports { kafka, registry, clickhouse });
        }
    }
    Err(PartsError::NoPorts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_remembers_its_ports_while_they_are_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Ports::of_folder(folder.path()).expect("ports");
        assert_eq!(Ports::of_folder(folder.path()).expect("ports"), first);
        let _taken = TcpListener::bind(("127.0.0.1", first.registry)).expect("a port");
        assert_ne!(Ports::of_folder(folder.path()).expect("ports"), first);
    }
}
